"""Refinement: what it learns from few labels, and that every choice is made on validation images."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_pair import AUX, CLASSES, WIDTH, adapter, images, logits, write_pair
from tiny_training import keeping_checkpoints, learned, trainer
from torch.nn import functional as F
from torch.optim import SGD, AdamW

from vimlight.errors import AdapterError, ConfigError
from vimlight.transmiter import GapRidge, LogitCache, TransMiter, align, write_cache
from vimlight.transmiter.cache.data_module import CacheDataModule
from vimlight.transmiter.learning.refinement import MIXTURES, Choice, MixtureScores, RefinementModule


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("caches")
    weak, _, strong = write_pair(path)
    started = adapter(strength=0.05).describe(class_names=CLASSES, aux_names=AUX, model="weak")
    align(started, weak, strong).save(path / "strong.safetensors")
    latent, labels = images(40, 1, seed=5)
    common = {"class_names": CLASSES, "aux_names": AUX, "split": "test", "model": "strong", "labels": labels}
    write_cache(path / "test", logits=logits(latent, 2), **common)
    return path


def cache_data(root, **options):
    return CacheDataModule(str(root / "strong"), **{"shots": 5, "batch_size": 8, "test": str(root / "test"), **options})


def refinement(data, start=None, **options):
    options = {"optimizer": partial(AdamW, lr=0.01), **options}
    return RefinementModule(start, data.class_names, data.aux_names, data.class_indices, **options)


def scores(model, data, split="val"):
    """Accuracy and loss of a module's adapter on a split."""
    with torch.no_grad():
        parts = [(model.among_classes(model(b["logits"])), b["target"]) for b in data.batches(split)]
    given, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    return float((given.argmax(1) == targets).float().mean()), float(F.cross_entropy(given, targets))


def test_mixtures_are_scored_as_one_by_one():
    own, tuned = torch.randn(2, 30, 4).unbind()
    targets = torch.randint(4, (30,))
    metric = MixtureScores()
    metric.update(own[:10], tuned[:10], targets[:10])
    metric.update(own[10:], tuned[10:], targets[10:])
    accuracies, losses = metric.compute()
    for place, share in enumerate(MIXTURES):
        mixed = (1 - share) * own + share * tuned
        assert float(accuracies[place]) == pytest.approx(float((mixed.argmax(1) == targets).float().mean()))
        assert float(losses[place]) == pytest.approx(float(F.cross_entropy(mixed, targets)), rel=1e-5)
    best = metric.choice(7)
    assert best.accuracy == float(accuracies.max())
    ties = losses[accuracies == accuracies.max()]
    assert best.loss == float(ties.min())
    assert best.epoch == 7


def test_a_choice_is_by_accuracy_and_then_by_loss():
    worse, better = Choice(0.5, 0.1, 1.0, 1), Choice(0.6, 0.9, 1.0, 2)
    assert better.beats(worse)
    assert not worse.beats(better)
    assert Choice(0.6, 0.8, 0.5, 3).beats(better)
    assert not Choice(0.6, 0.9, 0.1, 9).beats(better), "of equal ones the earlier stays"
    assert worse.beats(None)


@pytest.mark.parametrize("start", ["strong.safetensors", None])
def test_it_learns_and_stores_what_was_chosen_on_validation(root, tmp_path, start):
    data = cache_data(root)
    model = refinement(data, start and str(root / start), out=str(tmp_path / "plus.safetensors"))
    before = scores(model, data)
    fit = trainer(tmp_path, epochs=6)
    fit.fit(model, datamodule=data)
    after = scores(model, data)
    assert after[0] > before[0]
    assert model.choice.accuracy == pytest.approx(after[0])
    assert model.choice.loss == pytest.approx(after[1], rel=1e-4)
    assert float(fit.callback_metrics["val/best_accuracy"]) == pytest.approx(after[0])
    made = TransMiter.load(tmp_path / "plus.safetensors")
    rows = LogitCache.open(root / "test").logits()
    with torch.no_grad():
        assert torch.equal(made.task_logits(rows), model(rows))
    step = made.card.history[-1]
    assert step["step"] == "refinement"
    assert step["chosen_on_validation"] == model.choice._asdict()
    assert (step["images"], step["classes"]) == ({"train": 20, "val": 20}, [0, 1, 2, 3])
    assert made.card.model == "strong"
    assert [step["step"] for step in made.card.history[:-1]] == (["transfer"] if start else [])


def test_test_labels_and_test_images_are_not_looked_at(root, tmp_path, monkeypatch):
    opened = []
    original = LogitCache.logits
    monkeypatch.setattr(
        LogitCache, "logits", lambda self, *a, **k: opened.append(self.split) or original(self, *a, **k)
    )
    data = cache_data(root)
    trainer(tmp_path, epochs=2).fit(refinement(data), datamodule=data)
    assert set(opened) == {"train"}


def test_an_epoch_that_is_worse_is_not_taken(root, tmp_path):
    data = cache_data(root)
    model = refinement(data, str(root / "strong.safetensors"), optimizer=partial(SGD, lr=0.003, maximize=True))
    start = learned(model)
    first = scores(model, data)
    trainer(tmp_path, epochs=3).fit(model, datamodule=data)
    assert model.choice.epoch == 0
    assert scores(model, data)[0] >= first[0]
    torch.testing.assert_close(learned(model)["adapter.mlp.1.weight"], start["adapter.mlp.1.weight"])


def test_the_mixture_is_folded_into_the_last_layer(root):
    data = cache_data(root)
    model = refinement(data, adapter(strength=0.3))
    rows = LogitCache.open(root / "test").logits()
    with torch.no_grad():
        tuned = model(rows)
        model._consider(Choice(0.9, 0.1, 0.3, 1))
        model.adopt_choice()
        torch.testing.assert_close(model(rows), 0.7 * rows[:, :4] + 0.3 * tuned, rtol=1e-4, atol=1e-4)
        once = model(rows)
        model.adopt_choice()
        assert torch.equal(model(rows), once), "what was taken is not mixed a second time"


def test_an_adapter_that_harms_is_mixed_away(root, tmp_path):
    data = cache_data(root)
    harmful = adapter(strength=3.0)
    before = {name: value.clone() for name, value in harmful.state_dict().items()}
    model = refinement(data, harmful, optimizer=partial(SGD, lr=0.0))
    trainer(tmp_path).fit(model, datamodule=data)
    assert model.choice.mixture < 0.5
    untouched = RefinementModule(None, data.class_names, data.aux_names)
    assert scores(model, data)[0] >= scores(untouched, data)[0]
    assert all(torch.equal(value, before[name]) for name, value in harmful.state_dict().items()), "a copy was trained"


def test_among_some_classes(root, tmp_path):
    data = cache_data(root, classes="base")
    model = refinement(data)
    trainer(tmp_path, epochs=3).fit(model, datamodule=data)
    logits_ = torch.randn(6, 4)
    masked = model.among_classes(logits_)
    assert torch.equal(masked[:, :2], logits_[:, :2])
    assert bool((masked[:, 2:] == float("-inf")).all())
    (tested,) = trainer(tmp_path).test(model, datamodule=data, verbose=False)
    cache = LogitCache.open(root / "test")
    rows = (cache.labels < 2).nonzero().flatten()
    with torch.no_grad():
        right = model(cache.logits(rows))[:, :2].argmax(1) == cache.labels[rows]
    assert tested["test/accuracy"] == pytest.approx(float(right.float().mean()))
    assert all(torch.isfinite(value).all() for value in learned(model).values())


def test_a_resumed_run_is_the_uninterrupted_one(root, tmp_path):
    def build():
        data = cache_data(root)
        return refinement(data, str(root / "strong.safetensors")), data

    whole, data = build()
    keeping_checkpoints(tmp_path, epochs=4).fit(whole, datamodule=data)
    for epoch in (0, 2):
        resumed, data = build()
        trainer(tmp_path, epochs=4).fit(resumed, datamodule=data, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert resumed.choice == whole.choice
        for name, value in learned(whole).items():
            assert torch.equal(value, learned(resumed)[name])


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_checkpoint_is_measured_by_what_was_chosen(root, tmp_path, stage):
    data = cache_data(root)
    wild = {"optimizer": partial(AdamW, lr=0.3)}
    model = refinement(data, str(root / "strong.safetensors"), **wild)
    keeping_checkpoints(tmp_path, epochs=4).fit(model, datamodule=data)
    assert model.choice.epoch < 4, "the last weights are not those that were chosen"
    again = refinement(data, str(root / "strong.safetensors"), **wild)
    found = getattr(trainer(tmp_path), stage)(again, datamodule=data, ckpt_path=tmp_path / "epoch=3.ckpt")
    if stage == "predict":
        rows = LogitCache.open(root / "test").logits()
        with torch.no_grad():
            expected = model(rows).softmax(1)
        torch.testing.assert_close(torch.cat([batch["prediction"] for batch in found]), expected)
    else:
        split = "val" if stage == "validate" else "test"
        accuracy, loss = scores(model, data) if stage == "validate" else measured(model, root)
        assert found[0][f"{split}/accuracy"] == pytest.approx(accuracy)
        assert found[0][f"{split}/loss"] == pytest.approx(loss, rel=1e-4)


def measured(model, root):
    cache = LogitCache.open(root / "test")
    with torch.no_grad():
        given = model(cache.logits())
    return float((given.argmax(1) == cache.labels).float().mean()), float(F.cross_entropy(given, cache.labels))


def test_mistakes(root, tmp_path):
    data = cache_data(root)
    wrong = adapter().describe(class_names=("cat", "dog", "fox", "elk"), aux_names=AUX)
    with pytest.raises(AdapterError, match=r"for other classes than the data have: missing \['elk'\], extra \['owl'\]"):
        refinement(data, wrong)
    with pytest.raises(AdapterError, match="the adapter takes 20 logits and 4 task classes, the data have 16 and 4"):
        refinement(data, TransMiter(20, 4))
    GapRidge(WIDTH, 4).save(tmp_path / "gap.safetensors")
    with pytest.raises(AdapterError, match="holds a 'gap_ridge' adapter, not 'transmiter'"):
        refinement(data, str(tmp_path / "gap.safetensors"))
    weak = adapter().describe(class_names=CLASSES, aux_names=AUX, model="weak")
    with pytest.raises(ConfigError, match="refines logits of 'weak', the data are logits of 'strong'; move it first"):
        trainer(tmp_path).fit(refinement(data, weak), datamodule=data)
    unlabelled = CacheDataModule(str(root / "weak"), tuned=str(root / "weak_tuned"))
    with pytest.raises(ConfigError, match=r"learns from labels, and none are read where data.tuned is given"):
        trainer(tmp_path).fit(refinement(unlabelled), datamodule=unlabelled)
    with pytest.raises(ConfigError, match="refinement needs a CacheDataModule"):
        trainer(tmp_path).fit(refinement(data), train_dataloaders=data.train_dataloader())
