"""A run that is resumed, at whatever step, ends with the weights of one that was never interrupted, bit for bit."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import run_in
from tiny_training import downstream, fill, learned, midstream, scenes, tiny_backbone, trainer
from torch import nn
from torch.optim import SGD

from vimlight.training.midstream import MidstreamModule

STEPS = 4


class Dropping(MidstreamModule):
    """A module whose features are dropped out."""

    def features(self, images):
        return nn.functional.dropout(super().features(images), 0.5, self.training)


def module(root, **options):
    data = scenes(train=44, augment="light", **options)
    return midstream(tiny_backbone(), data, optimizer=partial(SGD, lr=0.01, momentum=0.9)), data


def module_with_workers(root):
    return module(root, num_workers=2)


def module_with_dropout(root):
    data = scenes(train=44)
    torch.manual_seed(3)
    settings = {"kind": "convpass", "hidden": 2}
    return Dropping(tiny_backbone(), settings, class_names=data.class_names, zoo="unused"), data


def gates(root):
    backbone, data = tiny_backbone(), scenes(train=44)
    if not (root / "zoo").exists():
        fill(root / "zoo", backbone, {"one": 0.1, "two": 0.3})
    return downstream(backbone, data, root / "zoo", head="linear"), data


def run(root, make, resumed=None, **options):
    model, data = make(root)
    keeper = ModelCheckpoint(root, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    torch.manual_seed(11 if resumed is None else 12)
    fit = trainer(root, 2, enable_checkpointing=True, callbacks=[keeper], **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*dataloader is not resumable")
        warnings.filterwarnings("error", "the checkpoint learnt from")
        fit.fit(model, datamodule=data, ckpt_path=resumed)
    assert fit.global_step == 2 * STEPS
    return learned(model)


@pytest.mark.parametrize("make", [module, module_with_dropout, gates, module_with_workers], ids=lambda f: f.__name__)
def test_resumed_at_any_step(tmp_path, make):
    whole = run(tmp_path, make)
    # Within the first epoch, at its last step, and within the second.
    for step in (2, STEPS, STEPS + 3) if make is module else (STEPS + 2,):
        (tmp_path / f"again {step}").mkdir()
        if make is gates:
            (tmp_path / f"again {step}" / "zoo").symlink_to(tmp_path / "zoo")
        found = run(tmp_path / f"again {step}", make, tmp_path / f"step={step}.ckpt")
        different = [name for name in whole if not torch.equal(whole[name], found[name])]
        assert not different, f"step {step}"


@pytest.mark.parametrize("other", [{"train": 43}, {"seed": 1, "val_fraction": 0.3}], ids=["images", "split"])
def test_other_data_are_said_in_a_line(tmp_path, other):
    backbone, first = tiny_backbone(), scenes()
    fit = trainer(tmp_path)
    fit.fit(midstream(backbone, first), datamodule=first)
    fit.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    then, data = first.learnt_from, scenes(**other)
    assert then.startswith("28 images of scenes/shapes (ids ")
    with pytest.warns(UserWarning, match="the checkpoint learnt from") as warned:
        trainer(tmp_path, 2).fit(midstream(backbone, data), datamodule=data, ckpt_path=tmp_path / "a.ckpt")
    (said,) = [str(each.message) for each in warned if "learnt from" in str(each.message)]
    assert said == f"the checkpoint learnt from {then!r}, and the run goes on with {data.learnt_from!r}"
    assert data.learnt_from != then


def module_of_two(root):
    return module(root, batch_size=4)


def _in_two(root, resumed=None):
    """Trains in two processes; the first one writes down what was learnt."""
    root.mkdir()

    def work():
        torch.set_num_threads(1)
        found = run(root, module_of_two, resumed, strategy="ddp", devices=2)
        if torch.distributed.get_rank() == 0:
            torch.save(found, root / "learned.pt")

    run_in(2, work, root)
    return torch.load(root / "learned.pt", weights_only=True)


@pytest.mark.slow
def test_two_processes_resumed_within_an_epoch(tmp_path):
    whole = _in_two(tmp_path / "whole")
    found = _in_two(tmp_path / "again", tmp_path / "whole" / f"step={STEPS + 2}.ckpt")
    assert [name for name in whole if not torch.equal(whole[name], found[name])] == []
