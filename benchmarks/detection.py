"""What a zoo is worth for boxes: `python benchmarks/detection.py`.

One downstream task, drawn shapes of which most are in no module's data, with the same head and the same steps for all:
on the bare backbone, on a zoo of random modules, and on a zoo of modules trained on objects, shapes and textures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import AdamW

from vimlight.backbone import Backbone, create_backbone
from vimlight.comparison.zoos import random_like
from vimlight.data import DownstreamDataModule, MidstreamDataModule
from vimlight.downstream import DownstreamModule
from vimlight.midstream import MidstreamModule
from vimlight.zoo import Zoo

__all__ = ["main"]

HEAD = {"kind": "detection", "width": 64, "levels": 2, "convs": 1}
MIDSTREAM = ("objects", "shapes", "textures")
METHODS = {"bare backbone": ("zoo", "none"), "random modules": ("random", "ens_moe"), "ViM": ("zoo", "ens_moe")}
ADAM = partial(AdamW, lr=4e-3, weight_decay=0.01)


def train_zoo(folder: Path, backbone: Backbone, images: int) -> None:
    """Trains the zoo's modules and makes random ones of the same size.

    Args:
        folder: Where the zoos `zoo` and `random` go.
        backbone: The backbone.
        images: Training images of each module.
    """
    for number, name in enumerate(MIDSTREAM):
        pl.seed_everything(0, verbose=False)
        data = MidstreamDataModule("scenes", {"task": name, "train": images, "test": 8}, batch_size=32)
        model = MidstreamModule(
            backbone, {"kind": "convpass", "hidden": 16}, name=name, zoo=str(folder / "zoo"), optimizer=ADAM,
            task=HEAD if data.kind == "detection" else None, kind=data.kind, class_names=data.class_names,
        )  # fmt: skip
        _trainer(4).fit(model, datamodule=data)
        Zoo(folder / "random").add(name, random_like(Zoo(folder / "zoo").load(name, backbone), seed=number))


def score(folder: Path, backbone: Backbone, method: str, shots: int, seed: int) -> dict[str, Any]:
    """Trains one method on a few images and returns its test metrics.

    Args:
        folder: Where the zoos are.
        backbone: The backbone.
        method: Name in `METHODS`.
        shots: Images that show each class.
        seed: Of the images and of the head.
    """
    zoo, how = METHODS[method]
    arguments = {"task": "odd_objects", "train": 2000, "test": 500}
    data = DownstreamDataModule("scenes", arguments, shots=shots, val_shots=1, batch_size=32, seed=seed)
    pl.seed_everything(seed, verbose=False)
    model = DownstreamModule(
        backbone, zoo=str(folder / zoo), aggregator=how, task=HEAD, kind=data.kind, class_names=data.class_names,
        optimizer=ADAM,
    )  # fmt: skip
    trainer = _trainer(20)
    trainer.fit(model, datamodule=data)
    return dict(trainer.test(model, datamodule=data, verbose=False)[0])


def _trainer(epochs: int) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs, accelerator="auto", devices=1, gradient_clip_val=1.0, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


def main() -> None:
    """Trains and prints a table: mean and standard deviation over the seeds, in %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shots", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=3000, help="training images of each module of the zoo")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = create_backbone("vit_scenes_small", pretrained=True)
    with tempfile.TemporaryDirectory() as place:
        train_zoo(Path(place), backbone, options.images)
        print("| drawn objects, test | shots | mAP | mAP at IoU 0.5 |\n|---|---:|---:|---:|")
        for shots in options.shots:
            for method in METHODS:
                found = [score(Path(place), backbone, method, shots, seed) for seed in range(options.seeds)]
                cells = [_cell([100 * run[f"test/{key}"] for run in found]) for key in ("map", "map_50")]
                print(f"| {method} | {shots} | {' | '.join(cells)} |", flush=True)


def _cell(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


if __name__ == "__main__":
    main()
