#!/bin/bash
# The same without a cluster: one share for each GPU of this machine, all in one folder.
#   configs/compare/shards.sh @compare/vtab1k_vit_b16 compare/vtab1k_vit_b16 4
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
for number in $(seq "$3"); do
  CUDA_VISIBLE_DEVICES=$((number - 1)) vimlight compare "$1" --out "$2" --shard "$number/$3" &
done
wait
vimlight compare "$1" --out "$2"    # joins what is there, and does what is missing
