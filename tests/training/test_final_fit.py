"""The fit after all was chosen, on images for training and validation together, as VTAB-1k has it."""

from __future__ import annotations

import pytest
import torch
from tiny_training import downstream, fill, keeping_checkpoints, tiny_backbone, trainer

from vimlight.data import SOURCES, DownstreamDataModule, Source, TensorTable
from vimlight.tasks import AffineHead
from vimlight.training.base import collect_features


def table(name, seed, labels, told=None):
    """Images of noise whose brightness tells the label; `told` are other labels to be given out."""
    noise = torch.rand(len(labels), 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    pixels = (60 * torch.tensor(labels)[:, None, None, None] + 70 * noise).to(torch.uint8)
    return TensorTable(pixels, torch.tensor(told or labels), name)


@pytest.fixture(params=["easy"])
def data(request):
    """A task of three classes whose validation labels may be wrong on purpose."""
    train, val = [0, 1, 2] * 4, [0, 1, 2] * 2

    @SOURCES.register("whole", replace=True)
    def whole() -> Source:
        told = val if request.param == "easy" else [(label + 1) % 3 for label in val]
        both = table("both", 1, train + val)
        tables = {"train": table("train", 1, train), "val": table("val", 2, val, told), "test": table("test", 3, val)}
        return Source("whole", "classification", ("dark", "grey", "light"), final=both, **tables)

    yield DownstreamDataModule("whole", batch_size=32)
    del SOURCES._entries["whole"]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, backbone):
    return fill(tmp_path_factory.mktemp("zoo"), backbone, {"calm": 0.02, "loud": 0.5}).path


def mean_of(model, data, split):
    features, _ = collect_features(model.aggregator.eval(), data.batches(split))
    return features.double().mean(dim=0)


def learnt_from(head):
    return (head.heads[0] if hasattr(head, "heads") else head).mean


@pytest.mark.parametrize("how", ["none", "ens_moe", "logit_ensemble"])
def test_the_last_head_sees_all_images_and_so_does_its_checkpoint(tmp_path, backbone, zoo, data, how):
    model = downstream(backbone, data, zoo, aggregator=how)
    seen = []
    model.on_validation_end = lambda: seen.append(learnt_from(model.head).clone())
    fit = keeping_checkpoints(tmp_path, epochs=1)
    fit.fit(model, datamodule=data)
    means = {split: mean_of(model, data, split) for split in ("train", "final")}
    means = {split: mean[0] if mean.dim() == 2 else mean for split, mean in means.items()}
    assert not torch.allclose(means["train"], means["final"], rtol=1e-3)
    torch.testing.assert_close(seen[-1].double(), means["train"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learnt_from(model.head).double(), means["final"], rtol=1e-4, atol=1e-5)
    again = downstream(backbone, data, zoo, aggregator=how)
    trainer(tmp_path).test(again, datamodule=data, ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
    torch.testing.assert_close(learnt_from(again.head), learnt_from(model.head))


@pytest.mark.parametrize("data", ["easy", "wrong"], indirect=True)
def test_the_strength_is_chosen_on_validation_images(tmp_path, backbone, zoo, data, monkeypatch):
    solve, factors = AffineHead.solve, []

    def noted(self, examples, task, solver, factor=1.0):
        factors.append(factor)
        return solve(self, examples, task, solver, factor)

    monkeypatch.setattr(AffineHead, "solve", noted)
    model = downstream(backbone, data, zoo, aggregator="uniform")
    trainer(tmp_path, limit_val_batches=0).fit(model, datamodule=data)
    chosen = factors[-1]
    train, val = (collect_features(model.aggregator.eval(), data.batches(split)) for split in ("train", "val"))
    losses = {}
    for factor in factors[:-1]:
        model.head.solve(model.task.examples(*train, len(train[1])), model.task, "ridge", factor)
        losses[factor] = float(model.task.loss(model.head(val[0]), val[1]))
    assert losses[chosen] == pytest.approx(min(losses.values()), rel=1e-5)
    assert len(losses) == 9


def test_a_head_that_learns_by_gradient_says_that_it_sees_fewer_images(tmp_path, backbone, zoo, data):
    model = downstream(backbone, data, zoo, aggregator="uniform", head="linear")
    with pytest.warns(UserWarning, match=r"head 'linear' learns from the 12 training images alone: .* all 18 is for"):
        trainer(tmp_path).fit(model, datamodule=data)


def test_kept_features_give_the_same_last_head(tmp_path, backbone, zoo, data):
    heads = []
    for kept in (None, {"dir": str(tmp_path / "kept"), "dtype": "float32"}):
        model = downstream(backbone, data, zoo, aggregator="none", prefix_cache=kept)
        trainer(tmp_path).fit(model, datamodule=data)
        heads.append(model.head.state_dict())
    assert any((tmp_path / "kept").iterdir())
    for name, value in heads[0].items():
        torch.testing.assert_close(heads[1][name], value)
