"""Sweeps of W&B: what they search is what the command takes, their grid is a plan, and one choice of each is run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml
from tiny_training import VIT, fill, tiny_backbone

from vimlight.backbone import create_backbone
from vimlight.cli import main
from vimlight.comparison.reading import read_plan

CONFIGS = Path(__file__).parent.parent / "configs"
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))
DISTRIBUTIONS = {"uniform", "log_uniform_values", "q_uniform", "int_uniform", "normal"}
SMALL = [
    "--trainer.logger.init_args.offline=true", "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1",
    f"--model.backbone={json.dumps({'name': 'vit_tiny_patch16_224', **VIT})}",
]  # fmt: skip
TINY = {
    "midstream": ["--data.dataset_args={task: letters, train: 60, test: 16, size: 32}"],
    "downstream": ["--data.test_limit=20", "--data.shots=2"],
}


@pytest.fixture(params=SWEEPS, ids=lambda path: path.stem)
def sweep(request):
    return request.param.stem, yaml.safe_load(request.param.read_text())


def value_of(parameter, last=False):
    """The first or last value that a sweep may choose."""
    if "values" in parameter:
        return parameter["values"][-1 if last else 0]
    return parameter["max" if last else "min"]


def words(content, last=False):
    """The command as W&B's agent builds it."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    chosen = {name: {"value": value_of(parameter, last)} for name, parameter in content["parameters"].items()}
    found = {**utils.create_sweep_command_args({"args": chosen}), "env": ["/usr/bin/env"]}
    command = []
    for part in utils.create_sweep_command(list(content["command"])):
        command += found[part[2:-1]] if part.startswith("${") else [part]
    assert command[:2] == ["/usr/bin/env", "vimlight"]
    return command[2:], {name: each["value"] for name, each in chosen.items()}


def test_it_is_a_sweep(sweep):
    _, content = sweep
    assert set(content) <= {"method", "metric", "early_terminate", "parameters", "command"}
    assert content["method"] in ("grid", "random", "bayes")
    assert set(content["metric"]) == {"name", "goal"}
    assert content["metric"]["goal"] in ("maximize", "minimize")
    for parameter in content["parameters"].values():
        discrete = isinstance(parameter.get("values"), list)
        assert discrete or (content["method"] != "grid" and parameter["distribution"] in DISTRIBUTIONS)


def test_wandb_s_own_schema_takes_it(sweep):
    # It asks for NumPy 1, so that no extra of ours may bring it.
    sweeps = pytest.importorskip("sweeps")
    assert sweeps.schema_violations_from_proposed_config(sweep[1]) == []


@pytest.mark.parametrize("last", [False, True])
def test_every_parameter_is_one_of_the_command(sweep, last, capsys):
    arguments, chosen = words(sweep[1], last)
    with pytest.raises(SystemExit) as leaving:
        main([*arguments, "--print_config"])
    assert leaving.value.code in (0, None)
    config = yaml.safe_load(capsys.readouterr().out)
    for name, value in chosen.items():
        found = config
        for key in name.split("."):
            found = found[key]
        assert found == value or found == {"how": value}, name


def test_the_grid_is_that_of_the_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill("zoo", tiny_backbone(), {"one": 0.1})
    content = yaml.safe_load((CONFIGS / "sweeps" / "downstream.yaml").read_text())
    plan = read_plan(CONFIGS / "compare" / "downstream_grid.yaml")
    grid = itertools.product(*(parameter["values"] for parameter in content["parameters"].values()))
    assert list(content["parameters"]) == ["model.init_args.aggregator", "data.init_args.shots", "seed_everything"]
    assert set(grid) == set(itertools.product([method.how for method in plan.methods], plan.shots, plan.seeds))


@pytest.mark.slow
def test_a_choice_is_run_and_leaves_the_metric(sweep, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb_record import read_run

    name, content = sweep
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    fill("zoo", create_backbone("vit_tiny_patch16_224", **VIT), {"one": 0.1})
    arguments, _ = words(content)
    main([*arguments, *SMALL, *TINY[name]])
    wandb.finish()
    wandb.teardown()
    assert 0 <= read_run(tmp_path).summary()[content["metric"]["name"]] <= 1
