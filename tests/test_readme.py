"""Whatever the README shows is run."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from numerics import assert_near

import vimlight as vl
from vimlight.aggregation import AGGREGATORS
from vimlight.cli import main
from vimlight.data import SOURCES
from vimlight.plugins import PLUGINS
from vimlight.transmiter import LogitCache, TransMiter

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OWN = [block for block in PYTHON if block.startswith("# my_")]
DEPLOYED = [block for block in PYTHON if "onnxruntime" in block]
CACHES = [block for block in PYTHON if "LogitCache" in block]
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    # The released checkpoint has a test of its own.
    if line.startswith("vimlight") and not re.search("modelscope|released", line)
]
# What makes a command quick without changing what it does. That of TransMiter runs as it stands: it has a promise.
QUICK = {
    "configs/midstream": "--data.dataset_args.train 64 --data.dataset_args.test 8 --trainer.max_epochs 1",
    "configs/downstream": "--trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1 --data.test_limit 8",
}


def test_the_python_example_prints_what_its_comments_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(PYTHON[0], {})
    assert capsys.readouterr().out == "torch.Size([2, 192]) torch.Size([24, 2])\n"


def test_several_tasks_in_one_pass(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in (PYTHON[0], *(block for block in PYTHON if "MultiTask" in block)):
        exec(block, names)
    assert capsys.readouterr().out.splitlines()[-1] == "[(3,), (5,), (3,)]"


@pytest.fixture
def own(tmp_path, monkeypatch):
    # What the blocks register is taken back, or tests that come later would find it.
    for registry in (AGGREGATORS, PLUGINS, SOURCES):
        monkeypatch.setattr(registry, "_entries", {name: registry[name] for name in registry})
    for block in OWN:
        name = re.match(r"# (\w+)\.py", block)[1]
        (tmp_path / f"{name}.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module
    for name in ("my_plugin", "my_aggregator", "my_data"):
        sys.modules.pop(name, None)


def test_a_module_type_an_aggregator_and_a_data_set_of_ones_own(own):
    for name in ("my_plugin", "my_aggregator", "my_data"):
        own(name)
    backbone = vl.create_backbone("test_vit", img_size=32)
    plugins = [vl.create_plugin("scale", backbone) for _ in range(2)]
    images = torch.randn(2, 3, 32, 32)
    for plugin in plugins:
        for parameter in plugin.parameters():
            torch.nn.init.normal_(parameter)
    model = vl.aggregate(backbone, plugins, how="first_only")
    with vl.attach(backbone, plugins[0]):
        expected = backbone(images)
    assert_near(model(images), expected, 1e-4)
    data = vl.DownstreamDataModule("noise", {"count": 40}, shots=2, preprocessing=backbone.preprocessing)
    assert data.class_names == ["even", "odd"]
    assert len(data.arrays("train")[0]) == 4


def ask_the_closed_model():
    """Writes the tables that the README asks a closed model for."""
    for split in ("train", "test"):
        cache = LogitCache.open(f"caches/strong/{split}")
        names = [*Path("classes.txt").read_text().splitlines(), *Path("aux.txt").read_text().splitlines()]
        asked = Path(f"ask_{split}.txt").read_text().splitlines()
        with Path(f"closed_{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", *names])
            table.writerows([name, *row] for name, row in zip(asked, cache.logits().tolist(), strict=True))


def assert_not_below_zero_shot(evaluation):
    """Checks what the recipe is for: nothing that carries the tuning over makes the strong model worse."""
    found = {row["method"]: row["mean"] for row in evaluation["summary"] if row["metric"] == "harmonic"}
    for method in ("transmiter", "safe"):
        assert found[method] >= found["target_zero_shot"] - 0.005, found


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for command in COMMANDS:
        if "closed_train.csv" in command:
            capsys.readouterr()
            for block in CACHES:
                exec(block, {})
            assert re.search(r"tensor\(0\.\d+\)", capsys.readouterr().out)
            ask_the_closed_model()
        words = shlex.split(command)[1:]
        extra = next((options for folder, options in QUICK.items() if folder in command), "")
        main([*words, *extra.split()])
    assert TransMiter.load("closed.safetensors").card.model == "closed"
    evaluation = json.loads(Path("results.json").read_text())
    assert evaluation["protocol"] == "base_to_novel"
    assert_not_below_zero_shot(evaluation)
    capsys.readouterr()
    for block in DEPLOYED:
        exec(block, {})
    assert capsys.readouterr().out == "(7, 10) 10\n"
    header = (tmp_path / "digits.csv").read_text().splitlines()[0]
    assert header.startswith("id,true,label,p_0")
