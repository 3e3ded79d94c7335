"""Small caches of invented features and logits."""

from __future__ import annotations

import pytest
import torch

from vimlight.transmiter import TextHead, write_cache

CLASSES = ("cat", "dog", "fish")
AUX = ("oak", "fern")


def random_features(rows=20, views=1, width=8, seed=0):
    return torch.randn(rows, views, width, generator=torch.Generator().manual_seed(seed))


def random_head(classes=5, width=8, scale=10.0, bias=0.0, seed=1):
    return TextHead(torch.randn(classes, width, generator=torch.Generator().manual_seed(seed)), scale, bias)


@pytest.fixture
def make_cache(tmp_path):
    """Returns a function that writes a cache of features and opens it."""

    def make(name="cache", **changes):
        rows = len(changes.get("logits", changes.get("features", range(20))))
        options = {
            "class_names": CLASSES,
            "aux_names": AUX,
            "labels": torch.arange(rows) % 3,
            "ids": [f"images/{row}.png" for row in range(rows)],
            "split": "train",
            "model": "tiny",
        }
        if "logits" not in changes:
            options |= {"features": random_features(rows), "head": random_head()}
        return write_cache(tmp_path / name, **{**options, **changes})

    return make
