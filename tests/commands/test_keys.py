"""What is said of keys that do not exist names the whole path of one that does."""

from __future__ import annotations

import re

import pytest
import yaml

from vimlight.commands.catalogue import training_keys
from vimlight.commands.keys import arguments_of, typed_keys
from vimlight.commands.train import _BESIDE, _DATA, _MODELS

KEYS = training_keys(_MODELS, _DATA, _BESIDE)
CLASSES = ["--model=MidstreamModule", "--data=MidstreamDataModule"]
SGD = "--model.optimizer=torch.optim.SGD"


def said(raw, *words):
    return KEYS.explain(raw, typed_keys([*CLASSES, *words]))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--data.root=x"], "'data.root'; did you mean 'data.init_args.dataset_args.root'?"),
        (["--data.init_args.root", "x"], "'data.init_args.root'; did you mean 'data.init_args.dataset_args.root'?"),
        (["--data.task=x"], "'data.task'; did you mean 'data.init_args.dataset_args.task'?"),
        (["--data.shots=3"], "'data.shots'; did you mean 'data.init_args.shots' of DownstreamDataModule?"),
        (["--data.lr=3"], "'data.lr'; did you mean 'model.init_args.optimizer.init_args.lr'?"),
        (["--data.dataset_arg.root=x"], "_arg.root'; did you mean 'data.init_args.dataset_args.root'?"),
        (["--model.lr=3"], "'model.lr'; did you mean 'model.init_args.optimizer.init_args.lr'?"),
        (["--model.optimizer.lr=3"], "optimizer.lr'; its class must be named too, by model.optimizer.class_path"),
        ([SGD, "--model.optimizer.rho=3"], "'; did you mean 'model.init_args.optimizer.init_args.rho' of Adadelta?"),
        (["--model.hidden=3"], "'model.hidden'; did you mean 'model.init_args.plugin.hidden'?"),
        (["--model.batch_size=3"], "'model.batch_size'; did you mean 'data.init_args.batch_size'?"),
        (
            ["--model.aggregator=x"],
            "'model.aggregator'; did you mean 'model.init_args.aggregator' of DownstreamModule?",
        ),
        (["--trainer.batch_size=3"], "'trainer.batch_size'; did you mean 'data.init_args.batch_size'?"),
        (["--trainer.callbacks.monitor=x"], "'; its class must be named too, by trainer.callbacks.class_path"),
        (["--trainer.gpus=1"], "unknown key 'trainer.gpus'"),
        (["--max_epochs=3"], "'max_epochs'; did you mean 'trainer.max_epochs'?"),
        (["--epochs=3"], "'epochs'; did you mean 'trainer.max_epochs'?"),
        (["--lr=3"], "'lr'; did you mean 'model.init_args.optimizer.init_args.lr'?"),
        (["--name=x"], "'name'; did you mean 'model.init_args.name'?"),
        (["--predictions.pth=x"], "'predictions.pth'; did you mean 'predictions.path'?"),
    ],
)
def test_hints_name_whole_paths(words, text):
    raw = words[-1] if "=" in words[-1] else words[0]
    assert said(raw.partition("=")[0].rpartition(".")[2].removeprefix("--"), *words).endswith(text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"model": {"class_path": "MidstreamModule", "lr": 3}},
            "'model.lr'; did you mean 'model.init_args.optimizer.init",
        ),
        ({"data": {"class_path": "x.MidstreamDataModule", "batch": 3}}, "unknown key 'data.batch'"),
        (
            {"model": {"init_args": {"optimizer": {"class_path": "torch.optim.SGD", "lrr": 1}}}},
            "optimizer.init_args.lr'?",
        ),
    ],
)
def test_keys_beside_a_class_in_a_file_are_found(tmp_path, content, text):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    assert text in said("class_path", "--config", str(file))


@pytest.mark.parametrize("value", ["!!timestamp none", "!!int none", "[1, 2", "{a: !!float x}"])
def test_values_that_are_no_yaml_are_texts(tmp_path, value):
    file = tmp_path / "run.yaml"
    file.write_text(f"data:\n  root: {value}\n")
    assert ("data.root", value) in typed_keys([f"--data.root={value}", "--config", str(file)])


def test_each_key_is_known_where_it_stands_and_no_hint_repeats_what_was_typed():
    known = {f"{place}.{name}" if place else name: owner
             for places in (KEYS.checked, KEYS.passed_on) for place, owners in places.items()
             for owner, names in owners.items() for name in names}  # fmt: skip
    assert len(known) > 200
    for path in sorted(known)[::5]:
        name = path.rpartition(".")[2]
        for typed in (f"model.{name}", f"trainer.{name}", name):
            hint = re.search(r"did you mean '([^']+)'", said(name, f"--{typed}=1"))
            # What is built from a class has a class path and arguments.
            real = hint is not None and (hint[1] in known or re.sub(r"\.(class_path|init_args)$", "", hint[1]) in known)
            assert typed in known or hint is None or (hint[1] != typed and real), typed


def test_arguments_are_those_of_the_bases_too():
    found = arguments_of(*_MODELS)["MidstreamModule"]
    assert {"backbone", "plugin", "task", "optimizer", "warmup"} <= set(found)
    assert not {"args", "kwargs", "training", "self"} & set(found)
