"""Commands killed at any instant: what is there is whole, and the same command ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from children import in_child
from scene import same
from tiny_training import VIT
from writers import modules

from tests.comparison.tiny_plans import here, write
from vimlight.cli import main
from vimlight.trainable import read_checkpoint
from vimlight.transmiter import LogitCache

KILLS = 10
SHAPES = {"task": "shapes", "train": 30, "test": 8, "size": 32}
LAST = "runs/fit/version_0/checkpoints/last.ckpt"


class Command(NamedTuple):
    """A command that leaves something in the current directory.

    Attributes:
        words: What is typed; the same again goes on, or does it anew.
        out: The file or directory that it leaves.
        read: Returns what that says, by the means of those who use it.
    """

    words: Sequence[str]
    out: str
    read: Callable[[], Any]

    def found(self) -> Any:
        """Returns what is there, or nothing."""
        return self.read() if Path(self.out).exists() else None


COMMANDS: dict[str, Callable[[], Command]] = {}


def command(make):
    """Registers a command: it prepares the current directory."""
    COMMANDS[make.__name__] = make
    return make


@command
def fit():
    plugin = {"plugin": {"kind": "convpass", "hidden": 2}, "name": "a", "overwrite": True}
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "MidstreamModule",
            "init_args": {"backbone": {"name": "vit_tiny_patch16_224", **VIT}, **plugin},
        },
        "data": {
            "class_path": "MidstreamDataModule",
            "init_args": {"dataset": "scenes", "dataset_args": SHAPES, "batch_size": 8},
        },
        "trainer": {
            "max_epochs": 2, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }  # fmt: skip
    Path("run.yaml").write_text(yaml.safe_dump(config))

    def read():
        for checkpoint in Path("runs").glob("**/[!.]*.ckpt"):
            read_checkpoint(checkpoint)
        return modules(Path("zoo"))

    return Command(["fit", "--config", "run.yaml"], "zoo", read)


@command
def predict():
    main(fit().words)
    given = ["--ckpt_path", LAST, "--predictions.path", "out.csv", "--predictions.overwrite", "true"]
    return Command(["predict", "--config", "run.yaml", *given], "out.csv", Path("out.csv").read_bytes)


@command
def cache_build():
    data = ["--data=DownstreamDataModule", "--data.dataset=scenes", f"--data.dataset_args={json.dumps(SHAPES)}"]
    words = ["cache", "build", "--model.name=vit_scenes_small", *data, "--data.batch_size=8", "--out=cache"]

    def read():
        cache = LogitCache.open("cache")
        assert cache.verify() == []
        return [cache.logits(), cache.labels, list(cache.ids)]

    return Command([*words, "--overwrite=true"], "cache", read)


@command
def compare():
    plan = write(Path.cwd(), seeds=[0], methods=["none", "ens_moe"])

    def read():
        for zoo in Path("out").glob("zoo/*/*"):
            modules(zoo)
        file = Path("out/results.json")
        records = json.loads(file.read_text())["records"] if file.exists() else None
        return records and [{**record, "seconds": None} for record in records]

    return Command(["compare", plan, "--out", "out"], "out", read)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Works in an empty directory and in this process alone; caches have several parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vimlight.comparison.executors.open_executor", here)
    monkeypatch.setattr("vimlight.commands.compare.prepare_workers", lambda modules: None)
    monkeypatch.setattr("vimlight.transmiter.cache.build._PART_ROWS", 8)


def hidden():
    return sorted(path.as_posix() for path in Path().rglob(".*"))


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_command_killed_at_seeded_instants(name, seed, record_property):
    killed = COMMANDS[name]()
    start = time.monotonic()
    whole = in_child(lambda: main(killed.words))
    assert (whole.error, whole.killed) == ("", False)
    took, expected, beside = time.monotonic() - start, killed.found(), hidden()
    assert expected is not None
    dice, count = random.Random(seed), 0
    for number in range(KILLS):
        if number % 2:
            # Else what stands there is replaced, or what was begun goes on.
            remove(Path(killed.out))
        outcome = in_child(lambda: main(killed.words), kill_after=dice.uniform(0.01, took))
        assert outcome.error == ""
        count += outcome.killed
        found = killed.found()
        assert found is None or same(found, expected)
    again = in_child(lambda: main(killed.words))
    assert (again.error, again.killed) == ("", False)
    assert same(killed.found(), expected)
    assert hidden() == beside, "left over"
    record_property("kills at instants", count)
