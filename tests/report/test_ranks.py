"""Several processes: the others end where one is gone, and say which."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from lightning.pytorch.strategies.launchers import subprocess_script
from processes import Forked, meeting_place
from tiny_training import VIT

from vimlight.cli import main
from vimlight.errors import DataError, RankError, TrainingError, UnknownNameError
from vimlight.report import ranks
from vimlight.report.ranks import how_ended, is_lost_peer, name_rank, wait_for_watch
from vimlight.training.midstream import MidstreamModule

GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:39242"


@pytest.mark.parametrize(
    ("error", "lost"),
    [(RuntimeError(GLOO), True), (RuntimeError("mat1 and mat2"), False), (TrainingError("gloo"), False)],
)
def test_a_lost_peer_is_told_from_other_errors(error, lost):
    assert is_lost_peer(error) == lost


@pytest.mark.parametrize(
    ("code", "text"),
    [(2, "ended with code 2, for the reason that it gave"), (-9, "was killed by SIGKILL (out of memory?)")],
)
def test_how_a_process_ended_is_said(code, text):
    assert how_ended(code) == text


@pytest.mark.parametrize("kind", [DataError, UnknownNameError])
def test_errors_name_their_rank(kind):
    error = kind("no image")
    name_rank(error, 3)
    assert str(error) == "rank 3: no image"


def test_who_misses_another_says_no_more_than_that(monkeypatch):
    monkeypatch.setattr(ranks, "_PATIENCE", 0)
    found = wait_for_watch(RuntimeError(GLOO))
    assert isinstance(found, RankError)
    assert found.exit_code == 1
    assert str(found).startswith("another process of this run does not answer; its own words say why")


def fit_with(fault):
    """Runs `vimlight fit` as the process of this number, and lets it meet its fault."""
    rank, how = fault.split()
    step = MidstreamModule.training_step

    def faulty(self, *arguments):
        if self.trainer.global_step == 2 and str(self.global_rank) == rank:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("no such image") if how == "refuses" else ValueError("a bug")
        return step(self, *arguments)

    def started(command, env, cwd):
        return Forked(lambda: main(words), environment=env)

    words = ["fit", "--config", "run.yaml"]
    MidstreamModule.training_step = faulty
    # What Lightning starts the other process with.
    subprocess_script.subprocess = SimpleNamespace(Popen=started)
    main(words)


SAID = {
    "1 killed": (137, ["rank 1 was killed by SIGKILL (out of memory?); the other processes of this run end too"]),
    "1 refuses": (2, ["rank 1: no such image", "rank 1 ended with code 2, for the reason that it gave; the other"]),
    "1 fails": (1, ["rank 1 fails: ValueError: a bug", "rank 1 ended with code 1, for the reason that it gave; the"]),
    "0 killed": (-9, ["rank 1 ends: the process that started it is gone"]),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tells by the group of processes what runs")
@pytest.mark.parametrize("fault", list(SAID))
def test_two_processes_one_of_which_is_lost(tmp_path, fault):
    backbone = {"name": "vit_tiny_patch16_224", **VIT}
    scenes = {"dataset": "scenes", "dataset_args": {"task": "shapes", "train": 60, "test": 8, "size": 32}}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    config = {
        "model": {"class_path": "MidstreamModule", "init_args": {"backbone": backbone}},
        "data": {"class_path": "MidstreamDataModule", "init_args": {**scenes, "batch_size": 4}},
        "trainer": {"accelerator": "cpu", "strategy": "ddp", "devices": 2, "max_epochs": 2, **quiet},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    running = Forked(lambda: fit_with(fault), environment=meeting_place(), folder=tmp_path, own_group=True)
    found = running.wait(600)
    ended, said = ends(running.pid), running.said.read_text()
    code, expected = SAID[fault]
    lines = [line.removeprefix("vimlight: ") for line in said.splitlines() if line.startswith("vimlight: ")]
    assert found == code, said[-3000:]
    assert len(lines) == len(expected), said[-3000:]
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines
    assert "Connection closed" not in said
    assert ("Traceback" in said) == (fault == "1 fails")
    assert ended


def ends(group, seconds=20):
    """Tells whether the last process of a group ends within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False
