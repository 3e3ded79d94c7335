"""Checkpoints that lack what they should say, or say something else: one line, whoever reads them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from tiny_training import VIT, digits, downstream, fill, keeping_checkpoints, midstream, scenes, tiny_backbone
from torch import nn

from vimlight.aggregation.ranking import Ranking
from vimlight.commands.mistakes import while_restoring
from vimlight.deployment import load_run
from vimlight.errors import CheckpointError, VimlightError
from vimlight.files.checkpoint_facts import stated, stated_names
from vimlight.files.checkpoint_files import CheckpointFiles
from vimlight.transmiter.learning.extraction import ExtractionModule
from vimlight.transmiter.learning.refinement import Choice, RefinementModule
from vimlight.transmiter.sources.module import SourceModule, TunedEpoch

CLASSES, AUX = ["cat", "dog"], ["oak"]
# What no entry is, in one way or another.
WRONG = (None, True, 3, -1.5, "text", b"bytes", [], [1], [[1]], ["a", "b", "c"], {}, {1: 2}, {"a": "b"}, torch.ones(3))


def of_midstream(root):
    return midstream(tiny_backbone(), scenes())


def of_downstream(root):
    if not (root / "zoo").exists():
        fill(root / "zoo", tiny_backbone(), {"one": 0.1, "two": 0.3})
    made = downstream(tiny_backbone(), digits(), root / "zoo")
    made.ranking = Ranking(3, 0.5, {"one": 0.4, "two": 0.3}, "ens_moe", 0.2)
    return made


def of_extraction(root):
    return ExtractionModule(CLASSES, AUX)


def of_refinement(root):
    made = RefinementModule(None, CLASSES, AUX)
    made.choice, made._best = Choice(0.5, 0.1, 1.0, 1), made.adapter.state_dict()
    return made


def of_source(root):
    made = SourceModule("clip_adapter", CLASSES)
    made.tuning = nn.Module()
    made.tuning.learned = nn.Linear(2, 2)
    made.best, made._best_state = TunedEpoch(0.5, 0.1, 1), made.tuning.learned.state_dict()
    return made


MODULES = [of_midstream, of_downstream, of_extraction, of_refinement, of_source]


def checkpoint_of(model):
    """What Lightning would keep of a model."""
    model._trainer = SimpleNamespace(optimizers=[torch.optim.AdamW([nn.Parameter(torch.ones(1))])])
    if hasattr(model, "prepared"):
        model.prepared, model.background = model.backbone.preprocessing, "white"
    found = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(found)
    return found


def load(model, content):
    model.on_load_checkpoint(content)
    model.load_state_dict(content["state_dict"])


@pytest.mark.parametrize("make", MODULES, ids=lambda make: make.__name__)
def test_entries_that_are_missing_or_of_another_type(tmp_path, make, record_property):
    model = make(tmp_path)
    content = checkpoint_of(model)
    load(model, copy.deepcopy(content))
    refused = 0
    for key in content["vimlight"]:
        for wrong in (*WRONG, "missing"):
            about = {**content["vimlight"], key: wrong}
            if isinstance(wrong, str) and wrong == "missing":
                del about[key]
            try:
                load(model, {**content, "vimlight": about})
            except VimlightError as error:
                refused += len(str(error).splitlines()) == 1 and len(str(error)) < 500
    # What is of the right type may be nothing, such as settings of an optimiser that it does not have.
    assert refused >= 10 * len(content["vimlight"])
    record_property("entries spoilt", len(content["vimlight"]) * (len(WRONG) + 1))


@pytest.mark.parametrize("make", [of_midstream, of_extraction], ids=lambda make: make.__name__)
def test_weights_that_are_none(tmp_path, make):
    model = make(tmp_path)
    content = checkpoint_of(model)
    name, tensor = next((name, x) for name, x in content["state_dict"].items() if x.is_floating_point())
    bad = [*WRONG, tensor.to_sparse(), tensor.to("meta"), tensor.long(), tensor.to(torch.complex64), tensor[..., :1]]
    changed = [{**content["state_dict"], name: wrong} for wrong in bad]
    for state in [*changed, {3: tensor}, {None: tensor, "a": tensor}, {}]:
        with pytest.raises(CheckpointError, match="checkpoint") as caught:
            load(model, {**content, "state_dict": state})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (None, "was not written by vimlight: it does not say what it belongs to"),
        ({}, "the checkpoint does not say its 'names'; it was altered"),
        ({"names": "abc"}, "the checkpoint's 'names' makes no sense: 'abc'; it was altered"),
        ({"names": ["a", 3]}, r"the checkpoint's 'names' makes no sense: \['a', 3\]; it was altered"),
    ],
)
def test_what_is_said_of_an_entry(about, message):
    with pytest.raises(CheckpointError, match=message):
        stated_names({"vimlight": about}, "names")
    assert stated({"vimlight": {"a": None}}, "a", str | None) is None
    assert stated({"vimlight": {}}, "a", str, "b") == "b"


@pytest.fixture(scope="module")
def resumable(tmp_path_factory):
    """A checkpoint of a run, and what resumes it."""
    root = tmp_path_factory.mktemp("run")

    def make():
        data = scenes(train=16)
        return midstream(tiny_backbone(), data), data

    keeping_checkpoints(root).fit(*make())
    content = torch.load(root / "epoch=0.ckpt", weights_only=True)

    def resume(changes, epochs=2):
        path = root / "changed.ckpt"
        kept = {key: value for key, value in {**content, **changes}.items() if value is not ...}
        CheckpointFiles().save_checkpoint(kept, path)
        model, data = make()
        keeping_checkpoints(root, epochs).fit(model, data, ckpt_path=path)

    return content, resume


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pytorch-lightning_version", ...),
        ("pytorch-lightning_version", 3),
        ("optimizer_states", ...),
        ("optimizer_states", [{"state": 3}]),
        ("lr_schedulers", ...),
        ("callbacks", 7),
        ("loops", {"fit_loop": 5}),
    ],
)
def test_what_lightning_keeps_is_taken_up_or_named(resumable, key, value):
    content, resume = resumable
    assert key in content
    with pytest.raises(Exception) as caught:  # noqa: PT011  (whatever Lightning raises)
        resume({key: value})
    assert while_restoring(caught.value) or isinstance(caught.value, VimlightError)


def test_other_errors_are_not_taken_for_those_of_a_checkpoint(resumable, monkeypatch):
    from vimlight.training.midstream import MidstreamModule

    def fail(self, *_):
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(MidstreamModule, "training_step", fail)
    with pytest.raises(KeyError) as caught:
        resumable[1]({})
    assert not while_restoring(caught.value)


CONFIGS = {
    "model: [": "is no valid YAML",
    "\0": "line 1 holds a NUL byte",
    "[" * 5000: "is no valid YAML",
    "a: 1": "is the config of no run: it lacks model.class_path",
    "model: {class_path: 3}": "is the config of no run",
    "model: {class_path: vimlight.MidstreamModule, init_args: 5}": "model.init_args must be a mapping, got 5",
    "model: {class_path: ''}": "the run's model '' cannot be imported",
    "model: {class_path: '..a'}": "the run's model '..a' cannot be imported",
    "model: {class_path: vimlight.Zoo}": "the run trained 'Zoo'",
    "model: {class_path: vimlight.MidstreamModule, init_args: {3: 4}}": "does not fit MidstreamModule",
    "model: {class_path: vimlight.MidstreamModule, init_args: {backbone: [vit]}}": "config does not fit|backbone",
}


@pytest.mark.parametrize("text", CONFIGS, ids=lambda text: text[:60])
def test_configs_of_runs(tmp_path, text):
    content = {"vimlight": {"class_names": CLASSES, "task": "classification"}, "state_dict": {}}
    CheckpointFiles().save_checkpoint(content, tmp_path / "a.ckpt")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(VimlightError, match=CONFIGS[text]) as caught:
        load_run(tmp_path / "a.ckpt")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("key", "wrong"), [("class_names", 3), ("class_names", [3]), ("task", ["a"]), ("modules", 5)])
def test_runs_whose_checkpoint_says_something_else(tmp_path, key, wrong):
    about = {"class_names": CLASSES, "task": "classification", key: wrong}
    CheckpointFiles().save_checkpoint({"vimlight": about, "state_dict": {}}, tmp_path / "a.ckpt")
    model = "class_path: vimlight.MidstreamModule, init_args: {backbone: {name: vit_tiny_patch16_224}}"
    (tmp_path / "config.yaml").write_text(f"model: {{{model}}}")
    with pytest.raises(CheckpointError, match=f"the checkpoint's {key!r} makes no sense"):
        load_run(tmp_path / "a.ckpt")


def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    import yaml

    from vimlight.cli import main

    monkeypatch.chdir(tmp_path)
    data = {"dataset": "scenes", "dataset_args": {"task": "shapes", "train": 16, "test": 8, "size": 32}}
    config = {
        "model": {"class_path": "MidstreamModule", "init_args": {"backbone": {"name": "vit_tiny_patch16_224", **VIT}}},
        "data": {"class_path": "MidstreamDataModule", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    content = checkpoint_of(of_midstream(tmp_path))
    CheckpointFiles().save_checkpoint(content, tmp_path / "a.ckpt")
    with pytest.raises(SystemExit) as stopped:
        main(["test", "--config", "run.yaml", "--ckpt_path", "a.ckpt"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == (
        "vimlight: checkpoint 'a.ckpt' cannot be taken up, since it was altered or keeps weights alone "
        "(KeyError: 'pytorch-lightning_version')"
    )
