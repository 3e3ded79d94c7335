"""Runs that are told to end, that start at the same moment, or that cannot write."""

from __future__ import annotations

import csv
import os
import signal
import threading
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from tiny_training import VIT

from vimlight.cli import main
from vimlight.errors import ConfigError
from vimlight.files.atomic import check_writable, write_whole
from vimlight.report.interruption import Interruption
from vimlight.report.run_directories import RunLogger
from vimlight.training.downstream import DownstreamModule
from vimlight.training.midstream import MidstreamModule
from vimlight.zoo import Zoo

MODULE = {
    "backbone": {"name": "vit_tiny_patch16_224", **VIT}, "plugin": {"kind": "convpass", "hidden": 2}, "name": "fresh",
}  # fmt: skip
SCENES = {"dataset": "scenes", "dataset_args": {"task": "shapes", "train": 60, "test": 8, "size": 32}, "batch_size": 8}
TRAINER = {
    "max_epochs": 2, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with the config `run.yaml`."""
    monkeypatch.chdir(tmp_path)
    config = {
        "model": {"class_path": "MidstreamModule", "init_args": MODULE},
        "data": {"class_path": "MidstreamDataModule", "init_args": SCENES},
        "trainer": TRAINER,
    }
    Path("run.yaml").write_text(yaml.safe_dump(config))
    model = {"backbone": MODULE["backbone"], "aggregator": "none"}
    data = {"dataset": "digits", "shots": 2, "test_limit": 20}
    closed = {
        "model": {"class_path": "DownstreamModule", "init_args": model},
        "data": {"class_path": "DownstreamDataModule", "init_args": data},
    }
    Path("closed.yaml").write_text(yaml.safe_dump({**closed, "trainer": TRAINER}))
    return tmp_path


def fit(*words, config="run.yaml"):
    main(["fit", "--config", config, *words])


def raise_signal(number, *_):
    os.kill(os.getpid(), number)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


CODES = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


def interrupted(monkeypatch, code, owner, hook, send, *words, **options):
    """Trains with a hook of a class replaced by what sends a signal, and checks how it ends."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patched:
        patched.setattr(owner, hook, send, raising=False)
        with pytest.raises(SystemExit) as stopped:
            fit(*words, **options)
    assert stopped.value.code == code
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize(("hook", "step"), [("on_train_batch_start", 3), ("on_validation_batch_start", 5)])
def test_a_signal_ends_a_training_between_steps_and_it_goes_on_exactly(
    workplace, monkeypatch, record_property, number, code, hook, step
):
    sent = []

    def send(self, trainer, module, batch, batch_index, *_):
        if trainer.global_step == step and not sent and (batch_index == 1 or hook == "on_train_batch_start"):
            sent.append(os.kill(os.getpid(), number))

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        interrupted(monkeypatch, code, Interruption, hook, send, "--data.val_fraction=0.4")
    assert not [each for each in warned if "weights_only" in str(each.message)]
    saved = Path("runs/fit/version_0/checkpoints/interrupted.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == (4 if step == 3 else 5)
    assert Zoo("zoo").names() == []
    fit("--ckpt_path", str(saved), "--data.val_fraction=0.4")
    assert Zoo("zoo").names() == ["fresh"]
    fit("--model.name", "whole", "--data.val_fraction=0.4")
    one, two = (weights(f"runs/fit/version_{n}/checkpoints/last.ckpt") for n in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert validated(1) == validated(2)[-len(validated(1)) :]
    assert len(validated(1)) == 2
    record_property("signals heeded", len(sent))


def validated(version):
    with Path(f"runs/fit/version_{version}/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["step"], row["val/loss"], row["val/accuracy"]) for row in rows if row["val/loss"]]


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize(
    ("owner", "hook", "config", "text"),
    [
        (Interruption, "on_validation_batch_start", "run.yaml", "before the first step; start it again"),
        (DownstreamModule, "fit_head", "closed.yaml", "before the first step; start it again"),
        (DownstreamModule, "on_train_end", "closed.yaml", "the last checkpoint before it is 'runs/fit/version_0/check"),
    ],
    ids=["sanity check", "closed form", "end"],
)
def test_a_signal_before_the_first_step_or_after_the_last_one_ends_at_once(
    workplace, monkeypatch, caplog, record_property, number, code, owner, hook, config, text
):
    caplog.set_level("INFO", logger="lightning.pytorch")
    interrupted(monkeypatch, code, owner, hook, lambda *_: os.kill(os.getpid(), number), config=config)
    (said,) = [line for line in caplog.messages if line.startswith("interrupted")]
    assert text in said
    assert Zoo("zoo").names() == []
    record_property("signals heeded", 1)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_signals_end_what_is_no_training_at_once(workplace, monkeypatch, caplog, record_property, stage):
    fit("--trainer.max_steps=1")
    hook = {"validate": "validation"}.get(stage, stage)
    caplog.set_level("INFO", logger="lightning.pytorch")
    for number, code in CODES:
        with monkeypatch.context() as patched:
            patched.setattr(Interruption, f"on_{hook}_batch_start", partial(raise_signal, number), raising=False)
            with pytest.raises(SystemExit) as stopped:
                main([stage, "--config", "run.yaml", "--ckpt_path", "runs/fit/version_0/checkpoints/last.ckpt"])
        assert stopped.value.code == code
        assert "interrupted before the end; start it again" in caplog.messages
    record_property("signals heeded", len(CODES))


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A job of Slurm with a stub of `scontrol`, which writes down what it is asked for."""
    job = {"NTASKS": 1, "JOB_ID": 77, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NODELIST": "here"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    stub = tmp_path / "bin" / "scontrol"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(stub.parent), prepend=os.pathsep)
    return tmp_path / "asked"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_a_job_of_slurm_is_requeued_and_goes_on_exactly(workplace, monkeypatch, record_property, slurm):
    def send(self, trainer, *_):
        if trainer.global_step in (2, 4):
            os.kill(os.getpid(), signal.SIGUSR1 if trainer.global_step == 2 else signal.SIGTERM)

    interrupted(monkeypatch, 143, Interruption, "on_train_batch_start", send)
    assert slurm.read_text() == "requeue 77\n"
    kept = Path("runs/slurm_77/hpc_ckpt_1.ckpt")
    assert torch.load(kept, weights_only=True)["global_step"] == 3
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    fit("--model.name", "whole")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    fit()
    assert not kept.exists()
    record_property("signals heeded", 2)
    one, two = (weights(f"runs/fit/version_{n}/checkpoints/last.ckpt") for n in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_each_epoch_leaves_the_last_checkpoint(workplace, monkeypatch):
    seen = []

    def end(self, *_):
        seen.append(sorted(path.name for path in Path("runs/fit/version_0/checkpoints").glob("*")))

    monkeypatch.setattr(Interruption, "on_train_epoch_start", end, raising=False)
    fit()
    assert seen == [[], ["last.ckpt"]]
    assert [path.name for path in Path("runs/fit/version_0/checkpoints").iterdir()] == ["last.ckpt"]


def test_runs_that_start_at_the_same_moment_have_directories_of_their_own(tmp_path):
    loggers = [RunLogger(tmp_path, name="fit") for _ in range(8)]
    barrier = threading.Barrier(8)

    def ask(logger):
        barrier.wait()
        logger.version  # noqa: B018

    threads = [threading.Thread(target=ask, args=(logger,)) for logger in loggers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(logger.version for logger in loggers) == list(range(8))
    assert {Path(logger.log_dir).name for logger in loggers} == {path.name for path in (tmp_path / "fit").iterdir()}


def test_two_runs_without_a_logger_in_one_directory(workplace):
    for name in ("one", "two"):
        fit("--trainer.logger", "false", "--trainer.fast_dev_run", "1", "--model.name", name)


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        fit(*words)
    assert stopped.value.code == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vimlight: ")]
    return said


@pytest.mark.parametrize("words", [("--model.zoo", "file/zoo"), ("--trainer.default_root_dir", "file/runs")])
def test_what_cannot_be_written_is_said_before_the_work(workplace, capsys, monkeypatch, words):
    Path("file").write_text("")
    monkeypatch.setattr("vimlight.training.midstream.MidstreamModule.training_step", None)
    said = refused(capsys, *words)
    assert "can be written to '" in said
    assert "file" in said


def test_a_name_that_was_taken_meanwhile_says_where_the_weights_are(workplace, capsys, monkeypatch):
    def slower(module, batch, index, step=MidstreamModule.training_step):
        Path("zoo").mkdir(exist_ok=True)
        Path("zoo/fresh.safetensors").touch()
        return step(module, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(MidstreamModule, "training_step", slower)
        with pytest.raises(SystemExit) as stopped:
            fit("--trainer.max_epochs=1")
    assert stopped.value.code == 2
    taken, stay = capsys.readouterr().err.splitlines()[-2:]
    assert taken.endswith("zoo 'zoo' has a module 'fresh' already; take another name")
    kept = "runs/fit/version_0/checkpoints/last.ckpt"
    assert stay == (
        f"the trained weights are in {kept!r}: --ckpt_path with another --model.name stores them, without training"
    )
    monkeypatch.setattr(MidstreamModule, "training_step", lambda *_: 1 / 0)
    fit("--trainer.max_epochs=1", f"--ckpt_path={kept}", "--model.name=other")
    trained = torch.load(kept, weights_only=True)["state_dict"]
    _, stored = Zoo("zoo").read("other")
    assert stored
    assert all(torch.equal(tensor, trained[f"plugin.{key}"]) for key, tensor in stored.items())


def test_a_taken_name_names_the_way_out(workplace, capsys, monkeypatch):
    monkeypatch.setattr("vimlight.zoo.zoo.Zoo.names", lambda self: [])
    Path("zoo").mkdir()
    Path("zoo/fresh.safetensors").touch()
    said = refused(capsys)
    assert said.endswith(
        "zoo 'zoo' has a module 'fresh' already; take another name, or replace it with --model.overwrite true "
        "(overwrite=True)"
    )


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda patch: patch.setattr("os.access", lambda *_: False), "is read-only"),
        (lambda patch: patch.setattr("shutil.disk_usage", lambda _: _Full), "disk is full"),
    ],
    ids=["read-only", "full"],
)
def test_places_that_take_nothing(tmp_path, monkeypatch, spoil, text):
    check_writable(tmp_path / "new" / "newer")
    spoil(monkeypatch)
    for call in (lambda: check_writable(tmp_path / "new"), lambda: write_whole(tmp_path / "a.txt", "text")):
        with pytest.raises(ConfigError, match=f"nothing can be written to .*: .*{text}"):
            call()
    assert list(tmp_path.iterdir()) == []


class _Full:
    free = 100


def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ConfigError, match=r"a.txt' cannot be written: No space left on device"):
        write_whole(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []
