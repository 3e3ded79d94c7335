"""A training that diverges stops at once, says where, and leaves the last good checkpoint and no module."""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_training import digits, downstream, fill, midstream, scenes, tiny_backbone, trainer
from torch.optim import SGD

from vimlight.errors import CheckpointError, DataError, TrainingError
from vimlight.zoo import Zoo


@pytest.fixture
def data():
    return scenes(train=40)


@pytest.fixture
def backbone():
    return tiny_backbone()


class Spoilt(pl.Callback):
    """Spoils one thing before the optimiser takes the third step."""

    def __init__(self, what):
        self.what = what

    def on_before_backward(self, trainer, model, loss):
        if trainer.global_step == 2 and self.what == "loss":
            loss.data.fill_(float("nan"))

    def on_before_optimizer_step(self, trainer, model, optimizer):
        if trainer.global_step == 2 and self.what == "gradient":
            next(p for p in model.trainable_parameters() if p.grad is not None).grad.view(-1)[0] = float("inf")


def diverges(fit, model, data):
    with pytest.raises(TrainingError) as raised:
        fit.fit(model, datamodule=data)
    text = str(raised.value)
    assert len(text.splitlines()) <= 2
    return text


def kept(root, **options):
    return ModelCheckpoint(root, save_last=True, every_n_train_steps=1, save_top_k=0, **options)


@pytest.mark.parametrize(("what", "said"), [("loss", "the loss is nan"), ("gradient", "a gradient is not finite")])
def test_it_stops_at_the_step_and_names_samples_and_the_last_good_checkpoint(tmp_path, backbone, data, what, said):
    model = midstream(backbone, data, zoo=tmp_path / "zoo", name="spoilt")
    fit = trainer(tmp_path, enable_checkpointing=True, callbacks=[kept(tmp_path), Spoilt(what)])
    text = diverges(fit, model, data)
    assert f"the training diverged: {said} in step 2 (epoch 0), on the samples '" in text
    assert f"(8 in all)\nthe last checkpoint before it is '{tmp_path / 'last.ckpt'}'" in text
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
    assert Zoo(tmp_path / "zoo").names() == []


@pytest.mark.parametrize("batches", [1, 3], ids=["after the last step", "while steps are left"])
def test_a_learning_rate_out_of_all_bounds(tmp_path, backbone, data, batches):
    model = midstream(backbone, data, zoo=tmp_path / "zoo", name="spoilt", optimizer=partial(SGD, lr=1e38))
    fit = trainer(tmp_path, enable_checkpointing=True, callbacks=[kept(tmp_path)], limit_train_batches=batches)
    text = diverges(fit, model, data)
    assert "the training diverged" in text or "the val loss is nan" in text
    assert Zoo(tmp_path / "zoo").names() == []
    for file in tmp_path.glob("*.ckpt"):
        assert all(torch.isfinite(value).all() for value in torch.load(file, weights_only=True)["state_dict"].values())


def test_weights_that_are_spoilt_behind_the_last_step_replace_no_checkpoint(tmp_path, backbone, data):
    class Spoil(pl.Callback):
        def on_train_epoch_end(self, trainer, model):
            if trainer.current_epoch == 1:
                next(model.plugin.parameters()).data.view(-1)[0] = float("nan")

    fit = trainer(
        tmp_path, 2, enable_checkpointing=True, limit_val_batches=0,
        callbacks=[Spoil(), ModelCheckpoint(tmp_path, save_last=True)],
    )  # fmt: skip
    text = diverges(fit, midstream(backbone, data, zoo=tmp_path / "zoo", name="spoilt"), data)
    assert "the training diverged: 1 of" in text
    assert f"the last checkpoint before it is '{tmp_path / 'last.ckpt'}'" in text
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0


def test_gates_that_diverge(tmp_path, backbone):
    fill(tmp_path / "zoo", backbone, {"one": 0.1, "two": 0.3})
    data = digits()
    model = downstream(backbone, data, tmp_path / "zoo", head="linear")
    text = diverges(trainer(tmp_path, 3, callbacks=[Spoilt("loss")], logger=False), model, data)
    assert "the loss is nan in step 2" in text
    assert "no checkpoint was kept yet; lower the learning rate" in text


def test_checkpoints_and_predictions_that_are_no_numbers_are_refused(tmp_path, backbone, data):
    from vimlight.report.predictions import PredictionWriter

    model = midstream(backbone, data)
    fit = trainer(tmp_path)
    fit.fit(model, datamodule=data)
    state = {**model.state_dict()}
    name = next(key for key in state if state[key].is_floating_point())
    with pytest.raises(CheckpointError, match=f"the checkpoint: 1 of .* numbers in '{name}' are NaN or infinite"):
        model.load_state_dict({**state, name: state[name].clone().index_put_((torch.tensor(0),) * state[name].dim(),
                                                                              torch.tensor(float("nan")))})  # fmt: skip
    next(model.head.parameters()).data.fill_(float("nan"))
    writing = trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "p.csv"))])
    with pytest.raises(DataError, match=r"the prediction for '.*' is not finite; did the training diverge"):
        writing.predict(model, datamodule=data)
    assert not (tmp_path / "p.csv").exists()
    with pytest.raises(TrainingError, match="the test loss is nan"):
        trainer(tmp_path).test(model, datamodule=data, verbose=False)
