"""Small invented features and text heads."""

from __future__ import annotations

import torch

from vimlight.transmiter import TextHead

CLASSES = ("cat", "dog", "fish")
AUX = ("oak", "fern")


def random_features(rows=20, views=1, width=8, seed=0):
    return torch.randn(rows, views, width, generator=torch.Generator().manual_seed(seed))


def random_head(classes=5, width=8, scale=10.0, bias=0.0, seed=1):
    return TextHead(torch.randn(classes, width, generator=torch.Generator().manual_seed(seed)), scale, bias)
