"""Small caches of invented features and logits."""

from __future__ import annotations

import pytest
import torch
from tiny_caches import AUX, CLASSES, random_features, random_head

from vimlight.transmiter import write_cache


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
