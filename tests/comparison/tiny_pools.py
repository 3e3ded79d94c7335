"""Pools of cached features of two made-up models, and plans of transfers between them."""

from __future__ import annotations

import torch
import yaml
from torch.nn import functional as F

from vimlight.transmiter import TextHead, write_cache

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")
TUNING = {"name": "adapter", "method": "clip_adapter", "lr": 0.01, "epochs": 2, "shots": 2, "few_epochs": 2}


def write_pools(root, datasets=("zoo",), models=("small", "large")):
    """Writes features that surround the texts of their classes, those of the later models more closely."""
    generator = torch.Generator().manual_seed(0)
    for dataset in datasets:
        texts = F.normalize(torch.randn(len(CLASSES) + 4, 8, generator=generator), dim=1)
        for number, model in enumerate(models):
            for split, count, views in (("train", 6, 2), ("test", 8, 1)):
                labels = torch.arange(len(CLASSES)).repeat(count)
                noise = torch.randn(len(labels), views, 8, generator=generator) / (2 + number)
                write_cache(
                    root / model / dataset / split,
                    features=F.normalize(texts[labels][:, None] + noise, dim=2),
                    head=TextHead(texts, 10.0, 0.0),
                    class_names=CLASSES,
                    aux_names=("gnu", "hen", "ibex", "jay"),
                    labels=labels,
                    split=split,
                    model=model,
                    weights=model,
                )
    return root


def transfers(root, **changes):
    """Returns what the file of a plan holds; names of `changes` are keys of its section, or of the plan."""
    section = {"pools": str(root), "pairs": [["small", "large"]], "datasets": ["zoo"], "tunings": [TUNING]}
    section.update({key: changes.pop(key) for key in list(changes) if key in {*section, "val_shots"}})
    return {
        "transfer": section,
        "methods": ["source_tuned", "target_zero_shot", "eft", "transmiter", "safe"],
        "shots": 3,
        "seeds": [0],
        "accelerator": "cpu",
        **changes,
    }


def write_transfers(root, **changes):
    """Writes a plan and returns its path."""
    path = root / "transfers.yaml"
    path.write_text(yaml.safe_dump(transfers(root / "pools", **changes)))
    return str(path)
