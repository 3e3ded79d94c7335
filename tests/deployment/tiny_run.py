"""The config of a short downstream run that keeps its last checkpoint."""

from __future__ import annotations

from pathlib import Path

import yaml


def write_config(path, model, data):
    """Writes a config for `vimlight fit`, of the arguments of the model and of its data."""
    last = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"save_last": True, "save_top_k": 0},
    }
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    config = {
        "model": {"class_path": "DownstreamModule", "init_args": model},
        "data": {"class_path": "DownstreamDataModule", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, **quiet, "callbacks": [last]},
    }
    Path(path).write_text(yaml.safe_dump(config))
