"""Caches of drawn shapes by the embedded weak model, and fine-tuning in one call."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

from vimlight.data import DownstreamDataModule
from vimlight.transmiter import LogitCache
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.models.image_text import load_model
from vimlight.transmiter.sources import TUNINGS, Start
from vimlight.transmiter.sources.data import SourceDataModule
from vimlight.transmiter.sources.module import SourceModule

EVERY = pytest.mark.parametrize("name", list(TUNINGS))
PARTITIONS = {"base": "0-2", "novel": "3-11"}


def build(folder, name="vit_scenes_small", template="a picture of a {}."):
    """Builds caches of the splits train (two views), val and test; two images of each of twelve shapes."""
    model = load_model(name)
    scenes = {"task": "shapes", "train": 120, "test": 36, "size": 64}
    data = DownstreamDataModule("scenes", scenes, shots=2, augment="light", test_limit=24)
    for split in ("train", "val", "test"):
        settings = CacheSettings(split=split, templates=template, partitions=PARTITIONS, views=2)
        build_cache(folder / split, model, data, settings)
    return folder


def start_of(path, seed=0):
    """What a fine-tuning of a cache starts from."""
    cache = LogitCache.open(path)
    rows = torch.arange(len(cache))
    head = cache.head.columns(torch.arange(cache.num_classes))
    return Start(cache, head, lambda: (cache.features(rows), cache.labels), seed)


def tune(method, *, epochs=2, module=None, trainer=None, **data):
    """Fine-tunes; returns the module and its data."""
    settings = {"max_epochs": epochs, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    silent = {"enable_progress_bar": False, "enable_model_summary": False}
    source = SourceDataModule(**{"train": "caches/weak/train", "batch_size": 12, **data})
    made = SourceModule(method, source.class_names, source.class_indices, **(module or {}))
    pl.Trainer(**settings, **silent, **(trainer or {})).fit(made, datamodule=source)
    return made, source
