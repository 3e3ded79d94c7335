"""A silent trainer for the tests of reports."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest


@pytest.fixture
def make_trainer(tmp_path):
    """Returns a function that builds a silent trainer on the CPU."""

    def build(*callbacks: pl.Callback, **settings: object) -> pl.Trainer:
        silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        common = {"default_root_dir": tmp_path / "run", "accelerator": "cpu", "logger": False, "max_epochs": 1}
        return pl.Trainer(callbacks=list(callbacks), **{**common, **silent, **settings})

    return build
