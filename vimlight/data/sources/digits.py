"""Handwritten digits, 8 x 8 grey pixels, from scikit-learn's wheel."""

from __future__ import annotations

import torch

from vimlight.data.sampling import set_apart
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import TensorTable

__all__ = ["digits"]


@SOURCES.register("digits")
def digits() -> Source:
    """Opens scikit-learn's 1,797 handwritten digits; a fixed half of each class is the test part."""
    from sklearn.datasets import load_digits

    data = load_digits()
    # Pixels count inked points of a 4 x 4 block, 0 to 16.
    images = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8)
    targets = torch.from_numpy(data.target).long()
    rest, apart = set_apart(targets, 0.5, seed=0)
    train = TensorTable(images[rest], targets[rest], "digits/train")
    test = TensorTable(images[apart], targets[apart], "digits/test")
    return Source("digits", "classification", tuple(str(digit) for digit in range(10)), train, test)
