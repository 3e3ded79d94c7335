#!/usr/bin/env bash
# TransMiter from CLIP's ViT-B/16 to its ViT-L/14 over CoOp's eleven data sets, 16 images of each base class:
#   bash configs/transmiter/coop_transfer.sh
# To SigLIP 2, three seeds, two of the data sets, and another way of fine-tuning (source_clip_lora.yaml):
#   STRONG=ViT-L-16-SigLIP2-256 STRONG_WEIGHTS=webli SEEDS="1 2 3" DATASETS="dtd eurosat" METHOD=clip_lora \
#     bash configs/transmiter/coop_transfer.sh
# Builds go on where they stopped; what is finished is left alone.
set -euo pipefail
configs=$(dirname "$0")
ROOT=${ROOT:-data/coop} OUT=${OUT:-caches} SEEDS=${SEEDS:-1} SHOTS=${SHOTS:-16} METHOD=${METHOD:-coop}
WEAK=${WEAK:-ViT-B-16} WEAK_WEIGHTS=${WEAK_WEIGHTS:-openai}        # null for local-dir: and hf-hub:
STRONG=${STRONG:-ViT-L-14} STRONG_WEIGHTS=${STRONG_WEIGHTS:-openai}
LOGITS=${LOGITS:-1024} VIEWS=${VIEWS:-4}
declare -A CLASSES=(
  [caltech-101]=100 [dtd]=47 [eurosat]=10 [fgvc_aircraft]=100 [food-101]=101 [imagenet]=1000 [oxford_flowers]=102
  [oxford_pets]=37 [stanford_cars]=196 [sun397]=397 [ucf101]=101
)
DATASETS=${DATASETS:-$(printf '%s\n' "${!CLASSES[@]}" | sort | xargs)}

for data in $DATASETS; do
  count=${CLASSES[$data]} half=$(((CLASSES[$data] + 1) / 2))          # base classes are the first half, rounded up
  for seed in $SEEDS; do
    here=$OUT/$data/$seed
    [ ! -e "$here/strong.safetensors" ] || continue
    build() {  # MODEL WEIGHTS NAME
      [ ! -e "$here/$3/test" ] || return 0
      vimlight cache build --config "$configs/cache_coop.yaml" --model.name "$1" --model.pretrained "$2" \
        --data.dataset_args "{root: $ROOT, dataset: $data, shots: $SHOTS, seed: $seed}" --data.augment light \
        --templates "coop/$data" --vocabulary.num_logits "$LOGITS" --vocabulary.seed "$seed" --views "$VIEWS" \
        --partitions "{base: 0-$((half - 1)), novel: $half-$((count - 1))}" --out "$here/$3/{split}"
    }
    build "$WEAK" "$WEAK_WEIGHTS" weak
    build "$STRONG" "$STRONG_WEIGHTS" strong
    [ -e "$here/tuned/test" ] || vimlight fit --config "$configs/source_$METHOD.yaml" --data.classes base \
      --data.train "$here/weak/train" --data.val "$here/weak/val" --data.also "[$here/weak/test]" \
      --data.out "$here/tuned/{split}" --model.seed "$seed"
    [ -e "$here/weak.safetensors" ] || vimlight fit --config "$configs/extract.yaml" \
      --data.train "$here/weak/train" --data.tuned "$here/tuned/train" --data.val "$here/weak/val" \
      --data.val_tuned "$here/tuned/val" --model.out "$here/weak.safetensors"
    vimlight transfer --adapter "$here/weak.safetensors" --source "$here/weak/train" --target "$here/strong/train" \
      --out "$here/strong.safetensors"
  done
done
here="$OUT/{dataset}/{seed}"
vimlight evaluate --protocol base_to_novel --datasets "${DATASETS// /,}" --seeds "${SEEDS// /,}" \
  --target "$here/strong/test" --source "$here/weak/test" --source-tuned "$here/tuned/test" \
  --target-train "$here/strong/train" --source-train "$here/weak/train" --source-tuned-train "$here/tuned/train" \
  --target-val "$here/strong/val" --source-val "$here/weak/val" --source-tuned-val "$here/tuned/val" \
  --adapter "$here/strong.safetensors" --out "$OUT/results.json" --markdown "$OUT/results.md" \
  --predictions "$OUT/predictions.csv" --overwrite
