"""Extraction: the loss, what is and is not read, noise, repeatability, and the stored adapter."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tiny_pair import AUX, CLASSES, WIDTH, adapter, write_pair
from tiny_training import keeping_checkpoints, learned, trainer
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vimlight.errors import AdapterError, CheckpointError, ConfigError, UnknownNameError
from vimlight.transmiter import LogitCache, TransMiter, write_cache
from vimlight.transmiter.cache.data_module import CacheDataModule
from vimlight.transmiter.learning.extraction import ExtractionModule, _expected, distillation_loss, regression_loss


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("caches")
    write_pair(path)
    return path


def cache_data(root, **options):
    return CacheDataModule(str(root / "weak"), **{"tuned": str(root / "weak_tuned"), "batch_size": 16, **options})


def extraction(data, **options):
    return ExtractionModule(data.class_names, data.aux_names, **options)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_the_loss():
    refined, tuned = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    p, q = (tuned / 0.5).softmax(1), (refined / 2).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(distillation_loss(refined, tuned, 2.0, 0.5), 4 * 0.5 * divergence)
    # At the published temperatures nothing is lost where the tuned logits are half as large.
    assert distillation_loss(2 * tuned, tuned, 1.0, 0.5).abs() < 1e-12


def test_the_regression_sees_every_column_and_no_shift():
    refined, tuned = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    apart = (refined - refined.mean(1, keepdim=True)) - (tuned - tuned.mean(1, keepdim=True))
    expected = torch.where(apart.abs() < 1, apart.square() / 2, apart.abs() - 0.5).mean()
    torch.testing.assert_close(regression_loss(refined, tuned), expected)
    assert regression_loss(tuned + torch.arange(5.0)[:, None], tuned) < 1e-12


@pytest.mark.parametrize("loss", ["divergence", "regression"])
def test_the_adapter_learns_what_fine_tuning_changed(root, tmp_path, loss):
    data = cache_data(root)
    model = extraction(data, loss=loss, out=str(tmp_path / "a.safetensors"), optimizer=partial(AdamW, lr=0.01))
    fit = trainer(tmp_path, epochs=10)
    fit.fit(model, datamodule=data)
    weak, tuned = (LogitCache.open(root / name).logits() for name in ("weak", "weak_tuned"))
    made = TransMiter.load(tmp_path / "a.safetensors")
    factor = 2 if loss == "divergence" else 1
    goal = (factor * tuned).softmax(1)
    before, after = ((goal - x[:, :4].softmax(1)).abs().sum(1).mean().item() for x in (weak, made(weak)))
    assert after < 0.5 * before
    assert float(fit.callback_metrics["train/agreement"]) > 0.6


def test_the_card_says_how_it_was_made(root, tmp_path):
    data = cache_data(root, seed=4)
    model = extraction(data, out=str(tmp_path / "a.safetensors"), basis="learned", seed=3, noise=0.2)
    trainer(tmp_path, epochs=2).fit(model, datamodule=data)
    made = TransMiter.load(tmp_path / "a.safetensors")
    assert made.settings == {"num_logits": 16, "num_classes": 4, "basis": "learned", "hidden_ratio": 4, "seed": 3}
    assert (made.card.model, made.card.class_names, made.card.aux_names) == ("weak", CLASSES, AUX)
    (step,) = made.card.history
    assert step["step"] == "extraction"
    assert step["caches"] == {
        "zero_shot": {"model": "weak", "hash": LogitCache.open(root / "weak").hash},
        "tuned": {"model": "weak tuned", "hash": LogitCache.open(root / "weak_tuned").hash},
    }
    assert (step["temperatures"], step["noise"], step["noise_probability"], step["seed"]) == ([1.0, 0.5], 0.2, 0.5, 3)
    training = step["training"]
    assert (training["epochs"], training["steps"], training["batch_size"], training["data_seed"]) == (2, 10, 16, 4)
    assert (training["optimizer"], training["lr"], training["weight_decay"]) == ("AdamW", 1e-3, 1e-3)


def test_labels_make_no_difference(root, tmp_path):
    write_pair(tmp_path, unlabelled=True)
    results = []
    for path in (root, tmp_path):
        data = cache_data(path)
        assert all("target" not in batch for batch in data.train_dataloader())
        model = extraction(data)
        trainer(tmp_path).fit(model, datamodule=data)
        results.append(learned(model))
    assert LogitCache.open(tmp_path / "weak").labels is None
    assert_same(*results)


@pytest.mark.parametrize("basis", ["fixed", "learned"])
def test_the_same_settings_give_the_same_adapter(root, tmp_path, basis):
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))
        data = cache_data(root)
        model = extraction(data, seed=seed, basis=basis)
        trainer(tmp_path, epochs=2).fit(model, datamodule=data)
        results.append(learned(model))
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["adapter.mlp.3.weight"], results[2]["adapter.mlp.3.weight"])


def test_a_resumed_run_is_the_uninterrupted_one(root, tmp_path):
    def build():
        data = cache_data(root)
        return extraction(data, basis="learned", out=None), data

    whole, data = build()
    keeping_checkpoints(tmp_path, epochs=3).fit(whole, datamodule=data)
    resumed, data = build()
    trainer(tmp_path, epochs=3).fit(resumed, datamodule=data, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert_same(learned(whole), learned(resumed))


def test_learning_rate_rises_by_steps_and_falls_to_nothing(root, tmp_path):
    rates = []

    class Watch(ExtractionModule):
        def on_train_batch_end(self, *args):
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    data = cache_data(root, batch_size=4)
    trainer(tmp_path, epochs=2).fit(Watch(data.class_names, data.aux_names), datamodule=data)
    assert len(rates) == 40
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) <= 2
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 1e-5


class Noisy(ExtractionModule):
    """Remembers the logits that the adapter was given."""

    def forward(self, logits):
        self.seen = [*getattr(self, "seen", []), logits]
        return super().forward(logits)


def test_noise_is_as_large_as_it_says_and_in_as_many_batches(root, tmp_path):
    data = cache_data(root, batch_size=80)
    clean = next(data.batches("train"))["logits"]
    model = Noisy(data.class_names, data.aux_names, noise=0.5, noise_probability=0.5)
    model.trainer = None
    noisy = []
    for batch_index in range(200):
        given = model._with_noise(clean, batch_index) if batch_index else clean
        if not torch.equal(given, clean):
            noisy.append((given - clean) / clean.std(1, keepdim=True))
    assert 70 < len(noisy) < 130
    deviations = torch.cat(noisy)
    assert float(deviations.std()) == pytest.approx(0.5, rel=0.02)
    assert abs(float(deviations.mean())) < 0.01
    assert not torch.equal(noisy[0], noisy[1])


@pytest.mark.parametrize("off", [{"noise": 0.0}, {"noise_probability": 0.0}])
def test_without_noise_the_logits_are_those_of_the_cache(root, tmp_path, off):
    data = cache_data(root, batch_size=80)
    model = Noisy(data.class_names, data.aux_names, **off)
    trainer(tmp_path).fit(model, datamodule=data)
    given = model.seen[0]
    views = torch.stack([LogitCache.open(root / "weak").logits(view=view) for view in (0, 1)]).flatten(0, 1)
    assert all((row == views).all(1).any() for row in given)


def test_a_schedule_by_plateaus_looks_at_the_training_loss(root, tmp_path):
    plateau = partial(ReduceLROnPlateau, factor=0.1, patience=0, threshold=1e9)
    data = cache_data(root)
    fit = trainer(tmp_path, epochs=3)
    fit.fit(extraction(data, lr_scheduler=plateau), datamodule=data)
    assert fit.optimizers[0].param_groups[0]["lr"] < 1e-3


def test_a_labelled_cache_shows_its_accuracy_and_predictions(root, tmp_path):
    data = cache_data(root, val=str(root / "weak"), test=str(root / "weak"))
    model = extraction(data)
    fit = trainer(tmp_path)
    fit.fit(model, datamodule=data)
    assert 0 < float(fit.callback_metrics["val/accuracy"]) <= 1
    (tested,) = fit.test(model, datamodule=data, verbose=False)
    labels = LogitCache.open(root / "weak").labels
    with torch.no_grad():
        refined = model.adapter(LogitCache.open(root / "weak").logits())[:, :4]
    assert tested["test/accuracy"] == pytest.approx(float((refined.argmax(1) == labels).float().mean()))
    predicted = fit.predict(model, datamodule=data)
    names = [label for batch in predicted for label in batch["label"]]
    assert names == [CLASSES[index] for index in refined.argmax(1)]


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precision(root, tmp_path, precision):
    data = cache_data(root)
    model = extraction(data, out=str(tmp_path / f"{precision}.safetensors"))
    start = learned(model)
    fit = trainer(tmp_path, precision=precision)
    fit.fit(model, datamodule=data)
    assert math.isfinite(float(fit.callback_metrics["train/loss"]))
    assert all(value.dtype == torch.float32 for value in learned(model).values())
    assert not torch.equal(learned(model)["adapter.mlp.3.weight"], start["adapter.mlp.3.weight"])
    card = TransMiter.load(tmp_path / f"{precision}.safetensors").card
    assert card.history[0]["training"]["precision"] == precision


@pytest.mark.parametrize("labelled", [True, False])
def test_images_left_out_tell_whether_it_is_expected_to_help(root, tmp_path, caplog, labelled):
    left_out = tmp_path / "left_out"
    write_pair(left_out, count=24, unlabelled=not labelled)
    # A fine-tuning that teaches something: whoever is as before is wrong.
    for folder, name in ((root, "train"), (left_out, "val")):
        turned = LogitCache.open(folder / "weak").logits()[:, :4].flip(1)
        views = turned[:, None].expand(-1, 2, -1)
        write_cache(tmp_path / name, logits=views, class_names=CLASSES, model="turned", split="train")
    tuned = {"tuned": str(tmp_path / "train"), "val_tuned": str(tmp_path / "val")}
    data = cache_data(root, val=str(left_out / "weak"), **tuned)
    model = extraction(data, out=str(tmp_path / "a.safetensors"), optimizer=partial(AdamW, lr=0.01))
    fit = trainer(tmp_path, epochs=10)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        fit.fit(model, datamodule=data)
    weak, tuned = LogitCache.open(left_out / "weak").logits(), LogitCache.open(tmp_path / "val").logits()
    made = TransMiter.load(tmp_path / "a.safetensors")
    expected = {
        "zero_shot": (weak[:, :4].argmax(1) == tuned.argmax(1)).float().mean().item(),
        "adapter": (made(weak)[:, :4].argmax(1) == tuned.argmax(1)).float().mean().item(),
    }
    assert expected["adapter"] > expected["zero_shot"]
    assert made.card.history[-1]["agreement_left_out"] == pytest.approx(expected)
    assert fit.callback_metrics["val/agreement_adapter"] == pytest.approx(expected["adapter"])
    assert ("val/accuracy" in fit.callback_metrics) == labelled
    said = f"says for {expected['adapter']:.1%}, the zero-shot model for {expected['zero_shot']:.1%}: it is expected to"
    assert said in caplog.text


def test_an_adapter_that_learns_nothing_is_not_expected_to_help():
    text = _expected({"zero_shot": 0.5, "adapter": 0.5})
    assert text.endswith("for 50.0%, the zero-shot model for 50.0%: it is not expected to help")


def test_what_would_fail_at_the_end_fails_at_the_start(root, tmp_path):
    data, out = cache_data(root), tmp_path / "a.safetensors"
    adapter().save(out)
    stored = out.read_bytes()
    cases = [(str(out), ConfigError, "exists; choose another path"), ("a.pt", AdapterError, "ends in '.pt'")]
    for path, error, text in cases:
        model = extraction(data, out=path)
        start = learned(model)
        with pytest.raises(error, match=text):
            trainer(tmp_path).fit(model, datamodule=data)
        assert_same(learned(model), start)
    assert out.read_bytes() == stored
    trainer(tmp_path, fast_dev_run=True).fit(extraction(data, out=str(tmp_path / "b.safetensors")), datamodule=data)
    assert not (tmp_path / "b.safetensors").exists()
    trainer(tmp_path).fit(extraction(data, out=str(out), overwrite=True), datamodule=data)
    assert out.read_bytes() != stored


def test_a_checkpoint_of_other_classes_is_refused(root, tmp_path):
    data = cache_data(root)
    fit = trainer(tmp_path)
    fit.fit(extraction(data), datamodule=data)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    assert set(torch.load(tmp_path / "a.ckpt", weights_only=True)["vimlight"]) >= {"class_names", "aux_names"}
    for names, aux in ((["elk", *CLASSES[1:]], AUX), (CLASSES, [*AUX[1:], "elk"])):
        with pytest.raises(CheckpointError, match=r"the checkpoint knows the classes .*, the data has"):
            trainer(tmp_path).fit(ExtractionModule(names, aux), datamodule=data, ckpt_path=tmp_path / "a.ckpt")
    wider = extraction(data, hidden_ratio=2)
    with pytest.raises(CheckpointError, match=r"has the shape .* in the checkpoint"):
        trainer(tmp_path).fit(wider, datamodule=data, ckpt_path=tmp_path / "a.ckpt")


def test_mistakes(root, tmp_path):
    data = CacheDataModule(str(root / "weak"))
    with pytest.raises(ConfigError, match=r"extraction learns from a fine-tuned model: set data.tuned"):
        trainer(tmp_path).fit(extraction(data), datamodule=data)
    with pytest.raises(ConfigError, match=r"'val_tuned' is of the images of 'val': set 'val' too, or leave it out"):
        cache_data(root, val_tuned=str(root / "weak_tuned"))
    for options, error, text in (
        ({"temperature": 0}, ConfigError, "temperatures must be above 0, got 0 and 0.5"),
        ({"noise": -1}, ConfigError, "noise must be at least 0"),
        ({"noise_probability": 2}, ConfigError, "noise_probability from 0 to 1, got 0.5 and 2"),
        ({"loss": "regresion"}, UnknownNameError, "loss of an extraction 'regresion'; did you mean 'regression'"),
        ({"basis": "fixde"}, UnknownNameError, "unknown basis 'fixde'; did you mean 'fixed'"),
        ({"warmup": 1.0}, ConfigError, "warmup is a share of the steps"),
    ):
        with pytest.raises(error, match=text):
            extraction(data, **options)
    with pytest.raises(ConfigError, match="class_names are missing"):
        ExtractionModule()
    assert extraction(data).adapter.num_logits == WIDTH
