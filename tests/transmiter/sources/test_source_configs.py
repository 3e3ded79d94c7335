"""The shipped configs of fine-tuning, end to end on the command line, and mistakes there."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from processes import run_in
from tiny_tuning import EVERY

from vimlight.cli import main
from vimlight.transmiter import LogitCache, check_paired
from vimlight.transmiter.sources import TUNINGS

CONFIGS = Path(__file__).parents[3] / "configs" / "transmiter"
QUICK = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def config(name):
    return CONFIGS / f"source_{name}.yaml"


def fit(name, *words, command="fit"):
    main([command, "--config", str(config(name)), *QUICK, *words])


def test_every_way_of_fine_tuning_has_a_config():
    assert {path.stem.removeprefix("source_") for path in CONFIGS.glob("source_*.yaml")} == set(TUNINGS)


@EVERY
def test_a_config_is_short_and_says_how_to_run_it(name):
    lines = config(name).read_text().splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith("# ")
    assert any(f"vimlight fit --config @transmiter/source_{name}" in line for line in lines)


@pytest.mark.slow
@EVERY
def test_from_zero_shot_caches_to_tuned_ones(shapes, name, capsys):
    fit(name)
    for split in ("train", "val", "test"):
        tuned = LogitCache.open(f"caches/weak_tuned/{split}")
        check_paired(LogitCache.open(shapes / split), tuned, task_only=True)
        assert tuned.manifest.data["tuning"]["method"] == name
    run = Path("runs/fit/version_0")
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert (run / "metrics.csv").read_text().count("\n") >= 3
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    words = ["--data.test=caches/weak/test", "--ckpt_path", checkpoint]
    fit(name, *words, command="test")
    assert "test/accuracy" in capsys.readouterr().out
    fit(name, *words, "--predictions.path=out.csv", command="predict")
    with Path("out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(LogitCache.open(shapes / "test").ids)
    predicted = LogitCache.open("caches/weak_tuned/test").logits().argmax(dim=1)
    names = LogitCache.open(shapes / "test").class_names
    same = [row["label"] == names[place] for row, place in zip(rows, predicted.tolist(), strict=True)]
    assert sum(same) >= len(same) - 1, "half precision may turn one"


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(shapes):
    # A schedule that does not depend on where the end is.
    steady = ["--model.lr_scheduler=torch.optim.lr_scheduler.ConstantLR", "--model.lr_scheduler.init_args.factor=1"]
    fit("taskres", *steady, "--data.out=caches/once/{split}", "--trainer.max_epochs=4")
    fit("taskres", *steady, "--data.out=caches/first/{split}", "--trainer.max_epochs=2")
    last = ["--trainer.max_epochs=4", "--ckpt_path=runs/fit/version_1/checkpoints/last.ckpt"]
    fit("taskres", *steady, "--data.out=caches/second/{split}", *last)
    once, first, second = (LogitCache.open(f"caches/{name}/train") for name in ("once", "first", "second"))
    assert once.manifest.data == second.manifest.data
    torch.testing.assert_close(once.logits(), second.logits(), atol=1e-4, rtol=1e-4)
    assert once.manifest.data["tuning"]["epoch"] <= 2 or not torch.allclose(first.logits(), second.logits(), atol=1e-3)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(shapes):
    """With the same images in a step, and each cache written once."""
    sgd = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.init_args.lr=1.0"]
    for devices in (1, 2):
        split = [f"--data.out=caches/{devices}/{{split}}", f"--data.batch_size={12 // devices}"]
        run = [f"--trainer.devices={devices}", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
        run_in(devices, partial(fit, "taskres", *sgd, *split, *run), ".")
    one, two = (LogitCache.open(f"caches/{devices}/test") for devices in (1, 2))
    torch.testing.assert_close(one.logits(), two.logits(), atol=0.02, rtol=0.01)
    assert one.manifest.data["tuning"]["epoch"] == two.manifest.data["tuning"]["epoch"]


MISTAKES = {
    "method": (["--model.method=taskress"], "unknown way of fine-tuning 'taskress'; did you mean 'taskres'"),
    "setting": (["--model.method={name: taskres, alfa: 1}"], "'alfa'; did you mean 'alpha'"),
    "range": (["--model.method={name: taskres, alpha: -1}"], "'alpha' of method 'taskres' must be at least 0"),
    "model key": (["--model.methd=taskres"], "unknown key 'model.methd'; did you mean 'model.init_args.method'"),
    "data key": (["--data.shot=3"], "unknown key 'data.shot'; did you mean 'data.init_args.shots'"),
    "cache": (["--data.train=caches/weak/tran"], "does not exist; did you mean 'caches/weak/train'"),
    "taken": (["--data.out=caches/weak/{split}"], "'caches/weak/train' exists; choose another directory or pass --"),
    "checkpoint": (["--ckpt_path=last"], "checkpoint 'last' does not exist"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_no_file_behind(shapes, capsys, mistake):
    words, message = MISTAKES[mistake]
    before = {path for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        fit("taskres", *words)
    assert stopped.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vimlight: ")]
    assert len(said) == 1
    assert message in said[0]
    assert {path for path in Path().rglob("*") if path.is_file() and "runs" not in path.parts} == before
