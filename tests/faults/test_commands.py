"""Commands killed at any instant: what is there is whole, and the same command ends as if nothing had happened."""

from __future__ import annotations

import random
import time

import pytest
import yaml
from children import in_child
from scene import same
from tiny_training import VIT
from writers import modules

from vimlight.cli import main
from vimlight.trainable import read_checkpoint

KILLS = 10


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A training of a second in this directory."""
    monkeypatch.chdir(tmp_path)
    scenes = {"dataset": "scenes", "dataset_args": {"task": "shapes", "train": 30, "test": 8, "size": 32}}
    plugin = {"plugin": {"kind": "convpass", "hidden": 2}, "name": "a", "overwrite": True}
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "MidstreamModule",
            "init_args": {"backbone": {"name": "vit_tiny_patch16_224", **VIT}, **plugin},
        },
        "data": {"class_path": "MidstreamDataModule", "init_args": {**scenes, "batch_size": 8}},
        "trainer": {
            "max_epochs": 2, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    return lambda: main(["fit", "--config", "run.yaml"])


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_training_killed_at_seeded_instants(training, tmp_path, seed, record_property):
    start = time.monotonic()
    whole = in_child(training)
    assert (whole.error, whole.killed) == ("", False)
    took, expected, dice, killed = time.monotonic() - start, modules(tmp_path / "zoo"), random.Random(seed), 0
    for _ in range(KILLS):
        outcome = in_child(training, kill_after=dice.uniform(0.01, took))
        assert outcome.error == ""
        killed += outcome.killed
        assert same(modules(tmp_path / "zoo"), expected)
        for checkpoint in tmp_path.glob("runs/**/[!.]*.ckpt"):
            read_checkpoint(checkpoint)
    again = in_child(training)
    assert (again.error, again.killed) == ("", False)
    assert same(modules(tmp_path / "zoo"), expected)
    assert not list(tmp_path.glob("zoo/.*"))
    record_property("kills at instants", killed)
