"""Data sets of the benchmarks on real images: parts of Fashion-MNIST, and which way up an image is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from vimlight.data import SOURCES, Source, TensorTable, load_source

__all__ = ["fashion_part", "rotation"]

_FASHION = "fashion_mnist"
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
