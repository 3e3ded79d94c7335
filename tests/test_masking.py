"""No key, token or password in what is saved, logged or printed: planted ones are looked for in every file."""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from tiny_training import VIT, tiny_backbone

from vimlight.cli import guarded, main
from vimlight.comparison.store import Store, key_of
from vimlight.data.sources import SOURCES
from vimlight.data.sources.scenes import scenes
from vimlight.errors import DataError
from vimlight.files.checkpoint_files import CheckpointFiles
from vimlight.masking import MASK, is_secret_name, masked, masked_words
from vimlight.pages import build_report
from vimlight.pages.gallery import build_gallery
from vimlight.plugins import create_plugin
from vimlight.report.wandb_runs import open_wandb
from vimlight.training.midstream import MidstreamModule
from vimlight.transmiter.adapters.file import AdapterCard
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.writer import CacheWriter
from vimlight.zoo import Zoo

# Opens nothing anywhere.
SECRET = "not-a-real-secret"
FORMS = ["hf_" + "aB3" * 12, "ghp_" + "aB3" * 12, "AKIA" + "ABCD" * 4, "sk-" + "aB3" * 12]
TEXTS = [
    f"https://me:{SECRET}@host/data?version=1", f"https://{SECRET}@host/data", f"s3://b/k?X-Amz-Signature={SECRET}&z=1",
    f"az://c/b?sv=1&sig={SECRET}&se=2", f"--trainer.logger.init_args.api_key={SECRET}",
    f"fit --data.args.token {SECRET} --x 1", f"{{'api_key': '{SECRET}', 'a': 1}}", f'{{"hf_token": "{SECRET}"}}',
    f"Namespace(api_key='{SECRET}', x=1)", f"token: '{SECRET}'", f"Authorization: Bearer {SECRET}",
    f"headers=Authorization=Bearer {SECRET}", f"WANDB_API_KEY={SECRET}", f"client_secret = {SECRET}",
    f"AccountName=x;AccountKey={SECRET}==;End", f"storage_options={{'key': '{SECRET}'}}",
    f"--storage_options.key={SECRET}", *(f"as {form} says" for form in FORMS),
]  # fmt: skip
VALUES = [
    {"api_key": SECRET}, {"hf_token": SECRET}, {"apiKey": SECRET}, {"AWS_SECRET_ACCESS_KEY": SECRET},
    {"auth": ["me", SECRET]}, {"storage_options": {"key": SECRET, "client_kwargs": {"aws_session_token": SECRET}}},
    {"a": [{"password": SECRET}, (f"https://me:{SECRET}@host",)]}, [f"--token={SECRET}"],
]  # fmt: skip
HARMLESS = [
    "the class token is read", "token: expected int, got 5", "class_token=True, depth=2", "eos_token=4", "tcp://host:8786",
    "s3://bucket/a@b", "--no-token --x 1", "author=me", "mean@2, a:b@c", {"token": None, "password": ""},
    {"class_token": True, "tokenizer": "bert", "key": "a"}, {"tokens": 4, "num_tokens": 8},
]  # fmt: skip


def told(value):
    return [secret for secret in (SECRET, *FORMS) if secret in str(value)]


@pytest.mark.parametrize("value", [*TEXTS, *VALUES], ids=str)
def test_secrets_are_masked(value):
    assert told(value)
    assert not told(masked(value))
    assert MASK in str(masked(value))


@pytest.mark.parametrize("value", HARMLESS, ids=str)
def test_everything_else_stays(value):
    assert masked(value) == value


def test_namespaces_keep_their_form():
    inner = argparse.Namespace(api_key=SECRET, depth=2)
    found = masked(argparse.Namespace(logger=inner, seed=1, classes=("a", "b")))
    assert found == argparse.Namespace(logger=argparse.Namespace(api_key=MASK, depth=2), seed=1, classes=("a", "b"))
    assert inner.api_key == SECRET


def test_variables_of_the_environment_are_masked_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("MY_HUB_TOKEN", SECRET)
    monkeypatch.setenv("OTHER_TOKEN", "none")
    assert masked(f"{SECRET} was refused, none else") == f"{MASK} was refused, none else"


@pytest.mark.parametrize("name", ["PWD", "OLDPWD"])
def test_directories_of_the_shell_are_no_passwords(monkeypatch, name):
    monkeypatch.setenv(name, "/home/somebody/work")
    assert masked("/home/somebody/work/zoo") == "/home/somebody/work/zoo"


@pytest.mark.parametrize("words", [["fit", "--a.api_key", SECRET], ["fit", f"--a.api_key={SECRET}", "--x", "1"]])
def test_words_of_a_command_line(words):
    assert masked_words(words)[0] == "fit"
    assert not told(masked_words(words))
    assert masked_words(["--token", "--x"]) == ["--token", MASK]


def test_names():
    assert is_secret_name("model.init_args.api_key")
    assert not any(map(is_secret_name, ("tokens", "key", "keyboard", 1, None)))


# What is written down of the settings of a run, by where.


class Keeping(TensorBoardLogger):
    """A logger that wants a key, and keeps what it is shown."""

    shown = None

    def __init__(self, api_key: str, storage_options: dict) -> None:
        super().__init__("logs")
        self.asked = api_key, storage_options

    def log_hyperparams(self, params, *args, **kwargs):
        self.shown.append((self.asked, params))
        super().log_hyperparams(params, *args, **kwargs)


class Own(MidstreamModule):
    """A module that saves its settings the way of Lightning."""

    def __init__(self, backbone: dict, hub_token: str, **training) -> None:
        super().__init__(backbone, {"kind": "convpass", "hidden": 2}, **training)
        self.save_hyperparameters("hub_token")


def content(root):
    """The bytes of all files, of compressed ones what is in them."""
    for path in (path for path in Path(root).rglob("*") if path.is_file()):
        yield path, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as members:
                yield from ((path, members.read(name)) for name in members.namelist())


@pytest.fixture
def guarded_source(monkeypatch):
    """A source of data that wants a token."""
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))

    @SOURCES.register("guarded")
    def source(token: str, url: str = "") -> object:
        assert SECRET in token
        return scenes("shapes", train=30, test=8, size=32)


def test_nothing_that_a_run_leaves_holds_one(tmp_path, monkeypatch, guarded_source, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = {"token": SECRET, "url": f"https://me:{SECRET}@host"}
    config = {
        "model": {
            "class_path": f"{__name__}.Own",
            "init_args": {
                "backbone": {"name": "vit_tiny_patch16_224", **VIT}, "hub_token": SECRET, "name": "fresh",
                "card": {"extra": {"password": SECRET}, "text": TEXTS[0]},
            },
        },
        "data": {"class_path": "MidstreamDataModule", "init_args": {"dataset": "guarded", "dataset_args": arguments}},
        "trainer": {
            "max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
            "logger": {
                "class_path": f"{__name__}.Keeping",
                "init_args": {"api_key": SECRET, "storage_options": {"key": SECRET}},
            },
        },
    }  # fmt: skip
    monkeypatch.setattr(Keeping, "shown", [])
    main(["fit", f"--config={yaml.safe_dump(config)}"])
    assert Zoo("zoo").card("fresh").extra == {"password": MASK}
    asked, shown = zip(*Keeping.shown, strict=True)
    assert asked[0] == (SECRET, {"key": SECRET}), "what is used is whole"
    assert {"hub_token"} in [set(each) for each in shown]
    assert not told(shown)
    found = list(content(tmp_path))
    assert {"config.yaml", "hparams.yaml", "last.ckpt", "fresh.safetensors"} <= {path.name for path, _ in found}
    assert [path.name for path, text in found if SECRET.encode() in text] == []
    out, err = capsys.readouterr()
    assert not told(out + err)


def test_caches(tmp_path):
    about = Manifest("model", "train", ("a", "b"), (), data={"dataset_args": {"token": SECRET}})
    about = about.replace(width=None, model_arguments={"hub_token": SECRET, "name": "m"})
    writer = CacheWriter(tmp_path / "cache", about, ids=["1", "2"])
    writer.append(torch.eye(2)[:, None])
    writer.finish()
    assert (writer.manifest.model_arguments, writer.manifest.data) == (
        {"hub_token": MASK, "name": "m"}, {"dataset_args": {"token": MASK}},
    )  # fmt: skip
    assert not [path for path, text in content(tmp_path) if SECRET.encode() in text]


def test_results_of_comparisons(tmp_path):
    store, settings = Store(tmp_path), {"dataset_args": {"token": SECRET, "root": "here"}}
    store.write("a", {"entry": settings, "value": 1.0})
    assert store.read("a") == {"entry": {"dataset_args": {"token": MASK, "root": "here"}}, "value": 1.0}
    other = {"dataset_args": {"token": "another", "root": "here"}}
    assert key_of(settings) == key_of(other) != key_of({"dataset_args": {"token": "another", "root": "there"}})


def test_histories_of_adapters():
    assert not told(AdapterCard("low_rank", {}).after("extraction", training={"token": SECRET}))


def test_pages(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("epoch,step,val/loss\n0,4,1.5\n")
    (tmp_path / "run" / "config.yaml").write_text(f"trainer:\n  logger: {{api_key: {SECRET}, project: mine}}\n")
    html = build_report([tmp_path / "run"]).render()
    assert "project: mine" in html
    assert SECRET not in html
    zoo = Zoo(tmp_path / "zoo")
    zoo.add("a", create_plugin("convpass", tiny_backbone(), hidden=2))
    assert f"zoo pull https://{MASK}@host/zoo a" in build_gallery(zoo, url=f"https://me:{SECRET}@host/zoo").render()


def test_checkpoints(tmp_path):
    state = {"state_dict": {"token": torch.zeros(1)}, "hyper_parameters": {"token": SECRET}, "epoch": 1}
    state["datamodule_hyper_parameters"] = {"password": SECRET}
    CheckpointFiles().save_checkpoint(state, tmp_path / "a.ckpt")
    found = CheckpointFiles().load_checkpoint(tmp_path / "a.ckpt")
    assert (found["hyper_parameters"], found["datamodule_hyper_parameters"]) == ({"token": MASK}, {"password": MASK})
    assert torch.equal(found["state_dict"]["token"], torch.zeros(1))
    assert state["hyper_parameters"] == {"token": SECRET}


# What is printed.


def test_messages(capsys):
    def fail():
        raise DataError(f"https://me:{SECRET}@host/x cannot be read")

    with pytest.raises(SystemExit):
        guarded(fail)
    assert capsys.readouterr().err == f"vimlight: https://{MASK}@host/x cannot be read\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.max_epochs", f"https://me:{SECRET}@host"],
        [f"--trainer.logger={__name__}.Keeping", f"--trainer.logger.init_args.storage_options={SECRET}"],
    ],
    ids=str,
)
def test_mistakes_in_configs(words, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["fit", "--model=MidstreamModule", "--data=MidstreamDataModule", *words])
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert not told(said)
    assert MASK in said


def test_wandb_is_not_told_in_the_command_line(monkeypatch):
    words = ["vimlight", "fit", "--trainer.logger.init_args.api_key", SECRET]
    monkeypatch.setattr(sys, "argv", words)
    run = open_wandb(lambda: SimpleNamespace(args=list(sys.argv)))
    assert not told(run.args)
    assert sys.argv is words
