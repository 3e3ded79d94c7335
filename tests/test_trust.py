"""What a config of a stranger may import and call: what the user named, and the classes of vimlight's own parts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml
from tiny_training import VIT

from vimlight.backbone import create_backbone
from vimlight.cli import main
from vimlight.comparison import work
from vimlight.comparison.reading import read_any
from vimlight.deployment import load_run
from vimlight.errors import BackboneError, ConfigError
from vimlight.trust import BUILT_IN, check_trusted, guard_parsers, trust_only, trusted

ROOT = Path(__file__).parents[1]
BACKBONE = {"name": "vit_tiny_patch16_224", **VIT}
SHAPES = {"task": "shapes", "train": 30, "test": 8, "size": 32}
CONFIG = {
    "model": {"class_path": "MidstreamModule", "init_args": {"backbone": BACKBONE, "name": "fresh"}},
    "data": {"class_path": "MidstreamDataModule", "init_args": {"dataset": "scenes", "dataset_args": SHAPES}},
    "trainer": {"fast_dev_run": True, "accelerator": "cpu", "enable_progress_bar": False},
}
LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
# Where a config may name code: the keys to get there, and what stands there.
PLACES = {
    "model": (("model",), lambda spec: spec),
    "data": (("data",), lambda spec: spec),
    "optimizer": (("model", "init_args", "optimizer"), lambda spec: spec),
    "optimizer by name": (("model", "init_args", "optimizer"), lambda spec: spec["class_path"]),
    "callbacks": (("trainer", "callbacks"), lambda spec: [spec]),
    "logger": (("trainer", "logger"), lambda spec: spec),
    "strategy": (("trainer", "strategy"), lambda spec: spec),
    "a callback's function": (
        ("trainer", "callbacks"), lambda spec: [{"class_path": LAMBDA, "init_args": {"on_fit_start": spec}}],
    ),
}  # fmt: skip
# What is harmless leaves a file; the name of the module is imported nowhere else.
EVIL = """
from pathlib import Path

Path("imported").touch()

def leave(path: str = "called"):
    Path(path).touch()
"""


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch, tmp_path):
    """Starts in an empty directory, without a limit, and leaves the parser's settings as they were."""
    settings = importlib.import_module("jsonargparse._common").parsing_settings
    for key, value in settings.items():
        monkeypatch.setitem(settings, key, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("evil.py").write_text(EVIL)
    yield
    trust_only(None)
    sys.modules.pop("evil", None)


def config(keys=(), value=None):
    """Writes a config with a value at a place."""
    content = yaml.safe_load(yaml.safe_dump(CONFIG))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if keys:
        inner[keys[-1]] = value
    Path("config.yaml").write_text(yaml.safe_dump(content))
    return ["fit", "--config", "config.yaml"]


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vimlight: ")]
    return said


@pytest.mark.parametrize("place", list(PLACES))
def test_what_is_not_named_is_not_even_imported(capsys, place):
    keys, shaped = PLACES[place]
    words = config(keys, shaped({"class_path": "evil.leave", "init_args": {"path": "called"}}))
    said = refused(capsys, "--trusted-modules", "mine,theirs", *words)
    assert "'evil.leave' is not trusted" in said
    assert said.endswith("--trusted-modules evil")
    assert (keys[-1] if "function" not in place else "on_fit_start") in said.partition("'evil")[0] or "name" in place
    assert not Path("imported").exists()


@pytest.mark.parametrize("place", list(PLACES))
def test_the_shell_is_refused_unless_it_is_named(capsys, place):
    keys, shaped = PLACES[place]
    words = config(keys, shaped({"class_path": "os.system", "init_args": {"command": "touch called"}}))
    said = refused(capsys, *words)
    assert "'os.system' is nothing that a config should name" in said
    assert said.endswith("--trusted-modules os")
    assert not Path("called").exists()


@pytest.mark.parametrize("key", ["task", "train"])
def test_a_class_path_where_any_value_may_stand_makes_nothing(capsys, key):
    spec = {"class_path": "evil.leave", "init_args": {"path": "called"}}
    refused(capsys, *config(("data", "init_args", "dataset_args", key), spec))
    assert not Path("called").exists()


@pytest.mark.parametrize("spec", [{"class_path": "vimlight.extensions.import_extension", "init_args": {"name": "evil"}},
                                  "vimlight.extensions.import_extension"])  # fmt: skip
def test_functions_of_what_is_trusted_always_are_not(capsys, spec):
    keys, shaped = PLACES["a callback's function"]
    said = refused(capsys, "--trusted-modules=mine", *config(keys, shaped(spec)))
    assert "on_fit_start: 'vimlight.extensions.import_extension' is nothing that a config should name" in said
    assert not Path("imported").exists()


@pytest.mark.parametrize("words", [["--trusted-modules=evil"], ["--trusted-modules", "mine, evil"],
                                   ["--import", "evil", "--trusted-modules", ""]])  # fmt: skip
def test_what_is_named_is_taken(capsys, words):
    keys, shaped = PLACES["a callback's function"]
    config(keys, shaped({"class_path": "evil.leave", "init_args": {"path": "called"}}))
    said = refused(capsys, *words, "validate", "--config", "config.yaml")
    assert "validate needs trained weights" in said
    assert Path("imported").exists()


def test_what_a_training_is_made_of_is_trusted_always(capsys):
    named = set()

    def collect(value):
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(each)
        if isinstance(value, dict) and isinstance(value.get("class_path"), str):
            named.add(value["class_path"])

    for path in [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("benchmarks/**/*.yaml")]:
        collect(yaml.safe_load(path.read_text()))
    trust_only([])
    long = {path for path in named if "." in path}
    assert len(long) >= 3
    for path in long:
        check_trusted(path, "a config")
    config(("model", "init_args", "optimizer"), {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}})
    said = refused(capsys, "--trusted-modules", "", "validate", "--config", "config.yaml")
    assert "validate needs trained weights" in said


def test_a_run_of_a_stranger(tmp_path):
    torch.save({"vimlight": {"class_names": [], "task": "classification"}, "state_dict": {}}, "last.ckpt")
    Path("config.yaml").write_text("model: {class_path: evil.Model, init_args: {}}\n")
    trust_only(["mine"])
    with pytest.raises(ConfigError, match=r"config.yaml': model.class_path: 'evil.Model' is not trusted; .* evil$"):
        load_run("last.ckpt")
    assert not Path("imported").exists()


def test_a_plan_of_a_stranger():
    spec = {"class_path": "evil.leave", "init_args": {}}
    task = {"name": "shapes", "dataset": "scenes", "dataset_args": {**SHAPES, "task": spec}}
    Path("plan.yaml").write_text(yaml.safe_dump({"backbone": BACKBONE, "downstream": [task], "methods": ["none"]}))
    trust_only([])
    with pytest.raises(ConfigError):
        read_any("plan.yaml")
    assert not Path("imported").exists()


def test_a_cache_of_a_stranger(capsys):
    Path("cache.yaml").write_text(yaml.safe_dump({
        "model": {"name": "vit_scenes_small"}, "out": "made", "data": {"class_path": "evil.leave"},
    }))  # fmt: skip
    said = refused(capsys, "--trusted-modules=mine", "cache", "build", "--config", "cache.yaml")
    assert "data: 'evil.leave' is not trusted" in said
    assert not Path("imported").exists()


def test_weights_within_a_package():
    Path("evil_kit").mkdir()
    Path("evil_kit/__init__.py").write_text(EVIL)
    trust_only([])
    with pytest.raises(ConfigError, match=r"checkpoint: 'evil_kit.inner' is not trusted"):
        create_backbone(**BACKBONE, checkpoint="package:evil_kit.inner", pretrained_cfg_overlay={})
    assert not Path("imported").exists()


@pytest.mark.parametrize("name", ["nowhere.inner", "..", "yaml.nothing.more"])
def test_weights_within_what_is_no_package(name):
    with pytest.raises(BackboneError, match="no package of that name is installed"):
        create_backbone(**BACKBONE, checkpoint=f"package:{name}", pretrained_cfg_overlay={})


def test_worker_processes_trust_no_more(monkeypatch):
    found = []
    monkeypatch.setattr(work, "_begin", lambda *_: found.append(trusted()))
    monkeypatch.setattr(work, "Pulse", lambda *_: type("Silent", (), {"end": lambda self: None})())
    monkeypatch.setattr(work, "settle", lambda: None)
    study = type("Study", (), {"folder": Path()})()
    work._do(work.Work(study, [], "a job", "file", trusted=("mine",)))
    assert found == [("mine",)]


@pytest.mark.parametrize("value", ["a/b", "mine,,th eirs", "jsonargparse", "jsonargparse.util", "*"])
def test_names_that_are_none(capsys, value):
    said = refused(capsys, "--trusted-modules", value, "zoo", "list")
    assert "--trusted-modules takes names of packages with commas between" in said


@pytest.mark.parametrize("option", ["--trusted-modules", "--import"])
def test_an_option_without_its_name(capsys, option):
    assert f"{option} needs the name of a module" in refused(capsys, "zoo", "list", option)


def test_what_is_built_in_is_there():
    for name in BUILT_IN:
        importlib.import_module(name)
    guard_parsers()
    assert jsonargparse.get_loader("yaml")("a: 1") == {"a": 1}
