"""Training a module for the zoo."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_training import VIT, keeping_checkpoints, learned, midstream, scenes, tiny_backbone, trainer
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

from vimlight.backbone import build_backbone
from vimlight.errors import CheckpointError, ConfigError, FingerprintError, UnknownNameError, ZooError
from vimlight.plugins import attach
from vimlight.tasks import AffineHead
from vimlight.trainable import warmup_cosine
from vimlight.training.midstream import MidstreamModule
from vimlight.zoo import Zoo


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def data():
    return scenes()


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], **tolerance)


def test_the_module_is_in_the_zoo_with_its_card_and_head(tmp_path, backbone, data):
    card = {"license": "apache-2.0", "author": "a tester", "extra": {"font": "serif"}}
    model = midstream(backbone, data, tmp_path / "zoo", name="shapes", card=card, optimizer=partial(AdamW, lr=0.02))
    fit = trainer(tmp_path, epochs=2)
    fit.fit(model, datamodule=data)
    zoo = Zoo(tmp_path / "zoo")
    assert zoo.names() == ["shapes"]
    card = zoo.card("shapes")
    assert (card.kind, card.task, card.dataset, card.seed) == ("convpass", "classification", "scenes/shapes", 0)
    assert (card.license, card.author, card.extra) == ("apache-2.0", "a tester", {"font": "serif"})
    assert card.fingerprint == backbone.fingerprint
    assert list(card.classes) == data.class_names
    assert card.samples == {split: len(ids) for split, ids in data.split_ids().items()}
    assert card.metrics["val"]["accuracy"] == pytest.approx(float(fit.callback_metrics["val/accuracy"]))
    assert set(card.metrics["train"]) == {"loss", "accuracy", "accuracy_per_class", "f1", "classes_seen"}
    assert card.training["optimizer"] == "AdamW"
    assert (card.training["lr"], card.training["epochs"], card.training["batch_size"]) == (0.02, 2, 8)
    assert not zoo.verify()

    module, tensors = zoo.load("shapes", backbone), zoo.load_head("shapes")
    head = AffineHead(backbone.num_features(model.readout), len(data.class_names))
    head.load_state_dict(tensors)
    images, _ = data.arrays("test")
    with torch.no_grad():
        with attach(backbone, module):
            logits = head(backbone(images, model.readout))
        torch.testing.assert_close(logits, model.eval()(images))
    assert not torch.equal(head.scale, torch.ones_like(head.scale)), "the head's inputs were standardised"


def test_the_backbone_sleeps_through_training(tmp_path, backbone, data):
    watched = []

    class Watch(MidstreamModule):
        def on_train_batch_end(self, *args):
            watched.append(any(module.training for module in self.backbone.modules()))
            watched.append(any(parameter.grad is not None for parameter in self.backbone.parameters()))

    before = backbone.compute_fingerprint()
    model = Watch(backbone, "convpass", kind=data.kind, class_names=data.class_names)
    trainer(tmp_path).fit(model, datamodule=data)
    assert watched
    assert not any(watched)
    assert backbone.compute_fingerprint() == before


@pytest.mark.parametrize("plugin", ["convpass", {"kind": "lora", "rank": 2}, {"kind": "ssf"}])
def test_all_that_is_declared_trainable_moves(tmp_path, backbone, data, plugin):
    model = midstream(backbone, data, plugin=plugin, optimizer=partial(AdamW, lr=0.05))
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer(tmp_path).fit(model, datamodule=data)
    names = {f"{part}.{name}" for part, m in model.trainable_modules().items() for name, _ in m.named_parameters()}
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, start[name])}
    assert moved == names


def test_checkpoints_hold_what_is_trained_and_no_backbone(tmp_path, backbone, data):
    model = midstream(backbone, data)
    fit = trainer(tmp_path)
    fit.fit(model, datamodule=data)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert {name.partition(".")[0] for name in checkpoint["state_dict"]} == {"plugin", "head"}
    assert checkpoint["vimlight"]["fingerprint"] == backbone.fingerprint
    numbers = sum(value.numel() for value in checkpoint["state_dict"].values())
    # The weights, two moments of the optimiser, and what Lightning keeps besides.
    assert (tmp_path / "a.ckpt").stat().st_size < 12 * numbers + 60_000
    assert numbers < 0.2 * sum(parameter.numel() for parameter in backbone.parameters())


SCHEDULES = {
    "warm-up and cosine": {},
    "by epochs": {"lr_scheduler": partial(StepLR, step_size=1, gamma=0.5)},
    "by steps": {"lr_scheduler": partial(OneCycleLR, max_lr=0.003, total_steps=15), "lr_interval": "step"},
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, backbone, schedule):
    def build():
        data = scenes(augment="light")
        optimizer = partial(SGD, lr=0.002, momentum=0.9)
        return midstream(backbone, data, optimizer=optimizer, **schedule), data

    whole, data = build()
    keeping_checkpoints(tmp_path, epochs=3).fit(whole, datamodule=data)
    resumed, data = build()
    trainer(tmp_path, epochs=3).fit(resumed, datamodule=data, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert_same(learned(whole), learned(resumed), rtol=0, atol=0)


def test_settings_of_the_optimiser_win_over_those_of_a_checkpoint(tmp_path, backbone, data):
    schedule = {"lr_scheduler": partial(StepLR, step_size=1, gamma=0.5)}
    first = midstream(backbone, data, optimizer=partial(SGD, lr=0.05, momentum=0.9, weight_decay=0.1), **schedule)
    keeping_checkpoints(tmp_path, epochs=1).fit(first, datamodule=data)
    second = midstream(backbone, data, optimizer=partial(SGD, lr=0.002, momentum=0.9, weight_decay=0.2), **schedule)
    fit = trainer(tmp_path, epochs=2)
    fit.fit(second, datamodule=data, ckpt_path=tmp_path / "epoch=0.ckpt")
    group = fit.optimizers[0].param_groups[0]
    assert (group["weight_decay"], group["momentum"]) == (0.2, 0.9)
    assert group["lr"] == pytest.approx(0.002 * 0.25)


def test_a_schedule_by_plateaus_looks_at_the_validation_loss(tmp_path, backbone, data):
    plateau = partial(ReduceLROnPlateau, factor=0.1, patience=0, threshold=1e9)
    model = midstream(backbone, data, optimizer=partial(SGD, lr=0.01), lr_scheduler=plateau)
    fit = trainer(tmp_path, epochs=3)
    fit.fit(model, datamodule=data)
    assert fit.optimizers[0].param_groups[0]["lr"] < 0.01


def test_the_default_schedule_rises_and_falls():
    factor = warmup_cosine(100, 0.1)
    values = [factor(step) for step in range(100)]
    assert values[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(values) == pytest.approx(1.0)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] < 0.001
    assert factor(1000) == pytest.approx(0.0)
    assert warmup_cosine(10, 0.0)(0) == pytest.approx(1.0, abs=0.03)


def test_the_default_schedule_needs_an_end(tmp_path, backbone, data):
    with pytest.raises(ConfigError, match="needs an end: set max_epochs or max_steps"):
        trainer(tmp_path, epochs=-1).fit(midstream(backbone, data), datamodule=data)


def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path, backbone):
    results = []
    for batch_size, batches in ((20, 1), (10, 2)):
        data = scenes(batch_size=batch_size)
        model = midstream(backbone, data, optimizer=partial(SGD, lr=0.002), warmup=0.0)
        start = learned(model)
        options = {"accumulate_grad_batches": batches, "limit_train_batches": batches}
        trainer(tmp_path, **options).fit(model, datamodule=data)
        assert not torch.equal(learned(model)["head.weight"], start["head.weight"])
        results.append(learned(model))
    assert_same(*results, rtol=1e-4, atol=1e-6)


def test_mixed_precision(tmp_path, backbone, data):
    model = midstream(backbone, data, tmp_path / "zoo", name="half", optimizer=partial(AdamW, lr=0.02))
    before = learned(model)
    fit = trainer(tmp_path, precision="bf16-mixed")
    fit.fit(model, datamodule=data)
    assert all(value.dtype == torch.float32 for value in learned(model).values())
    assert any(not torch.equal(value, before[name]) for name, value in learned(model).items())
    assert torch.isfinite(fit.callback_metrics["val/loss"])
    training = Zoo(tmp_path / "zoo").card("half").training
    assert (training["precision"], training["background"]) == ("bf16-mixed", "white")


def test_several_labels_an_image(tmp_path, backbone):
    data = scenes("attributes", train=60)
    model = midstream(backbone, data, tmp_path / "zoo", name="attributes")
    fit = trainer(tmp_path)
    fit.fit(model, datamodule=data)
    assert 0 < fit.callback_metrics["val/average_precision"] <= 1
    assert Zoo(tmp_path / "zoo").card("attributes").task == "multilabel"


def test_validate_test_and_predict(tmp_path, backbone, data):
    model = midstream(backbone, data)
    fit = trainer(tmp_path)
    fit.fit(model, datamodule=data)
    assert set(fit.validate(model, datamodule=data, verbose=False)[0]) > {"val/accuracy", "val/loss"}
    tested = fit.test(model, datamodule=data, verbose=False)[0]
    predicted = fit.predict(model, datamodule=data)
    names = [label for batch in predicted for label in batch["label"]]
    _, targets = data.arrays("test")
    right = sum(name == data.class_names[target] for name, target in zip(names, targets.tolist(), strict=True))
    assert right / len(names) == pytest.approx(tested["test/accuracy"])


def test_without_a_name_and_in_a_trial_nothing_is_stored(tmp_path, backbone, data):
    trainer(tmp_path).fit(midstream(backbone, data, tmp_path / "zoo"), datamodule=data)
    trainer(tmp_path, fast_dev_run=True).fit(midstream(backbone, data, tmp_path / "zoo", name="x"), datamodule=data)
    assert not (tmp_path / "zoo").exists()


def test_what_would_fail_at_the_end_fails_at_the_start(tmp_path, backbone, data):
    model = midstream(backbone, data, tmp_path / "zoo", name="taken")
    trainer(tmp_path).fit(model, datamodule=data)
    stored = (tmp_path / "zoo" / "taken.safetensors").read_bytes()
    cases = [
        ({"name": "taken"}, "has a module 'taken' already"),
        ({"name": "No Name"}, "cannot name a module"),
        ({"name": "new", "card": {"licence": "mit"}}, "unknown card key 'licence'; did you mean 'license'"),
    ]
    for options, message in cases:
        again = midstream(backbone, data, tmp_path / "zoo", **options)
        start = learned(again)
        with pytest.raises(ZooError, match=message):
            trainer(tmp_path).fit(again, datamodule=data)
        assert_same(learned(again), start)
    # A module that is in the zoo can still be measured, and replaced where that is asked for.
    trainer(tmp_path).test(midstream(backbone, data, tmp_path / "zoo", name="taken"), datamodule=data, verbose=False)
    assert (tmp_path / "zoo" / "taken.safetensors").read_bytes() == stored
    again = midstream(backbone, data, tmp_path / "zoo", name="taken", overwrite=True, optimizer=partial(SGD, lr=0.3))
    trainer(tmp_path).fit(again, datamodule=data)
    assert (tmp_path / "zoo" / "taken.safetensors").read_bytes() != stored


def test_a_checkpoint_of_something_else_is_refused(tmp_path, backbone, data):
    fit = trainer(tmp_path)
    fit.fit(midstream(backbone, data), datamodule=data)
    path = tmp_path / "a.ckpt"
    fit.save_checkpoint(path)

    def refused(error, message, model):
        with pytest.raises(error, match=message):
            trainer(tmp_path).test(model, datamodule=data, ckpt_path=path, verbose=False)

    refused(FingerprintError, "was trained on the backbone with fingerprint", midstream(tiny_backbone(1), data))
    last, *_, first = turned = data.class_names[::-1]
    order = rf"another order than the data: class 0 is '{first}' there and '{last}' here; .*\.classes: \['{first}', '"
    refused(CheckpointError, order, midstream(backbone, data, class_names=turned))
    others = ["other", *data.class_names[1:]]
    refused(
        CheckpointError, r"knows the classes \[.*the data has \['other'", midstream(backbone, data, class_names=others)
    )
    wider = midstream(backbone, data, plugin={"kind": "convpass", "hidden": 4})
    refused(CheckpointError, r"has the shape .* in the checkpoint, .* here", wider)
    unlike = midstream(backbone, data, plugin="lora")
    refused(CheckpointError, "does not fit this MidstreamModule: it lacks .*nearest to", unlike)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["vimlight"]
    torch.save(checkpoint, path)
    refused(CheckpointError, "was not written by vimlight", midstream(backbone, data))


def test_mistakes(backbone, data):
    with pytest.raises(UnknownNameError, match="plug-in 'convpas'; did you mean 'convpass'"):
        midstream(backbone, data, plugin="convpas")
    with pytest.raises(UnknownNameError, match="setting of plug-in 'convpass' 'hiden'; did you mean 'hidden'"):
        midstream(backbone, data, plugin={"kind": "convpass", "hiden": 2})
    with pytest.raises(ConfigError, match="lack 'kind', the name of its type"):
        midstream(backbone, data, plugin={"hidden": 2})
    with pytest.raises(UnknownNameError, match="readout 'layer'; did you mean 'layers'"):
        midstream(backbone, data, readout="layer")
    with pytest.raises(ConfigError, match="warmup is a share of the steps"):
        midstream(backbone, data, warmup=1.5)
    with pytest.raises(UnknownNameError, match="lr_interval 'steps'; did you mean 'step'"):
        midstream(backbone, data, lr_interval="steps")
    with pytest.raises(ConfigError, match="lack 'name'; did you mean it by 'nam'"):
        build_backbone({"nam": "test_vit"})


def test_a_backbone_by_its_arguments(data):
    model = midstream({"name": "vit_tiny_patch16_224", **VIT}, data)
    assert model.backbone.name == "vit_tiny_patch16_224"
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, len(data.class_names))
