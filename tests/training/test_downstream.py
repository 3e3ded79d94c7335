"""Aggregating a zoo for a task."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_training import digits, downstream, fill, keeping_checkpoints, learned, scenes, tiny_backbone, trainer
from torch.optim import SGD, AdamW

from vimlight.aggregation import aggregate, list_aggregators
from vimlight.data import DownstreamDataModule
from vimlight.errors import CheckpointError, ConfigError, DataError, FingerprintError, UnknownNameError, ZooError
from vimlight.plugins import create_plugin
from vimlight.zoo import Zoo

EVERY = pytest.mark.parametrize("how", list_aggregators())
# Strongly random modules destroy what the backbone sees.
STRENGTHS = {"calm": 0.02, "loud": 3.0, "wild": 10.0}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, backbone):
    return fill(tmp_path_factory.mktemp("zoo"), backbone, STRENGTHS).path


@pytest.fixture
def own_zoo(tmp_path, backbone):
    """A zoo that the test may change."""
    return fill(tmp_path / "zoo", backbone, STRENGTHS)


def fitted(root, backbone, data, zoo, epochs=2, fit_options=None, **options):
    model = downstream(backbone, data, zoo, **options)
    fit = trainer(root, epochs, **(fit_options or {}))
    fit.fit(model, datamodule=data)
    return model, fit


def results(fit, model, data, **options):
    return fit.test(model, datamodule=data, verbose=False, **options)[0]


def stored(fit, path):
    fit.save_checkpoint(path)
    return path


@EVERY
def test_every_aggregator_learns_beside_a_closed_form_head(tmp_path, backbone, data, zoo, how):
    before = backbone.compute_fingerprint()
    model = downstream(
        backbone, data, zoo, aggregator=how, extra_module={"kind": "convpass", "hidden": 2},
        optimizer=partial(AdamW, lr=0.05),
    )  # fmt: skip
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer(tmp_path, epochs=2, limit_val_batches=0).fit(model, datamodule=data)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, start[name])}
    declared = {f"{part}.{name}" for part, m in model.trainable_modules().items() for name, _ in m.named_parameters()}
    assert moved == declared
    assert backbone.compute_fingerprint() == before


@EVERY
def test_every_aggregator_keeps_its_results_in_a_checkpoint(tmp_path, backbone, data, zoo, how):
    model, fit = fitted(tmp_path, backbone, data, zoo, aggregator=how, epochs=1)
    path = stored(fit, tmp_path / "a.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    assert {name.partition(".")[0] for name in checkpoint["state_dict"]} == {"aggregator", "head"} - (
        {"aggregator"} if how in ("none", "uniform", "k_streams") else set()
    )
    again = downstream(backbone, data, zoo, aggregator=how)
    assert results(trainer(tmp_path), again, data, ckpt_path=path) == results(fit, model, data)
    torch.testing.assert_close(again.gates, model.gates, rtol=0, atol=0)


@pytest.mark.parametrize("head", ["ridge", "lda", "linear"])
@pytest.mark.parametrize("how", ["ens_moe", "logit_ensemble"])
def test_every_head(tmp_path, backbone, data, zoo, how, head):
    # Of the strong modules, tiny steps of the gates are large steps of the features.
    options = {"modules": ["calm"], "aggregator": how, "head": head, "optimizer": partial(SGD, lr=1e-4)}
    model, fit = fitted(tmp_path, backbone, data, zoo, **options)
    assert results(fit, model, data)["test/accuracy"] > 0.15
    weights = [value for name, value in learned(model).items() if name.startswith("head.") and "weight" in name]
    assert all(value.any() for value in weights)


def test_with_nothing_to_learn_several_processes_are_refused(backbone, data, zoo):
    model = downstream(backbone, data, zoo, aggregator="uniform")
    model._trainer = SimpleNamespace(world_size=2, precision="32-true")
    with pytest.raises(ConfigError, match=r"nothing here takes gradient steps: .* set trainer.devices: 1"):
        model.setup("fit")


def test_with_nothing_to_learn_one_epoch_solves_the_head(tmp_path, backbone, data):
    model, fit = fitted(tmp_path, backbone, data, tmp_path / "no zoo", epochs=1, aggregator="none")
    images, targets = data.arrays("train")
    with torch.no_grad():
        assert (model.eval()(images).argmax(dim=1) == targets).float().mean() > 0.3
    assert results(fit, model, data)["test/accuracy"] > 0.2
    assert not (tmp_path / "no zoo").exists()


def test_a_fresh_module_alone(tmp_path, backbone, data):
    options = {"aggregator": "none", "extra_module": "lora", "optimizer": partial(AdamW, lr=0.01)}
    model, fit = fitted(tmp_path, backbone, data, tmp_path / "no zoo", **options)
    assert set(model.trainable_modules()) == {"aggregator.gating", "aggregator.extra", "head"}
    path = stored(fit, tmp_path / "a.ckpt")
    again = downstream(backbone, data, tmp_path / "no zoo", **options)
    assert results(trainer(tmp_path), again, data, ckpt_path=path) == results(fit, model, data)


@pytest.fixture
def uneven(tmp_path, backbone):
    """A zoo of a module that wipes out every image, and one that does little."""
    zoo = fill(tmp_path / "uneven", backbone, {"calm": 0.02})
    wipe = create_plugin("ssf", backbone)
    with torch.no_grad():
        for parameter in wipe.parameters():
            parameter.zero_()
    zoo.add("blind", wipe)
    return zoo.path


def test_gates_start_from_a_ranking_of_the_modules(tmp_path, backbone, data, uneven):
    still = {"epochs": 1, "optimizer": partial(SGD, lr=0.0)}
    model, _ = fitted(tmp_path, backbone, data, uneven, **still)
    errors = model.rank_modules()
    assert list(errors) == ["blind", "calm"]
    assert errors["calm"] < errors["blind"]
    shared = model.gates[(model.gates > 0).all(dim=1)]
    assert (shared[:, 1] > shared[:, 0]).all()
    single, _ = fitted(tmp_path, backbone, data, uneven, aggregator="best_single", **still)
    assert single.gates.tolist() == [[0.0, 1.0]]


def test_the_zoo_starts_as_strong_as_leaves_the_least_error(tmp_path, backbone, data, uneven):
    still = {"epochs": 1, "optimizer": partial(SGD, lr=0.0)}
    model, _ = fitted(tmp_path, backbone, data, uneven, modules=["blind"], start="equal", **still)
    assert model.gates.max() == 1
    model, _ = fitted(tmp_path, backbone, data, uneven, **still)
    found = model.gates.sum(dim=1).max()
    errors = {}
    for strength in model.aggregator.strengths:
        model.aggregator.scale_to(strength)
        errors[strength] = model._left_out_error(model.aggregator)
    assert float(found) == pytest.approx(min(errors, key=errors.get), abs=1e-6)


# The others are sums in one pass like the first of these.
WORTH = ("ens_moe", "router", "best_single", "k_streams", "none")


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=() if how in WORTH else pytest.mark.slow) for how in list_aggregators()]
)
def test_after_fit_a_line_says_what_the_zoo_is_worth(tmp_path, backbone, data, own_zoo, caplog, how):
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        model, fit = fitted(tmp_path, backbone, data, own_zoo.path, epochs=1, aggregator=how)
    if how == "none":
        assert model.ranking is None
        return
    found = model.ranking
    assert found.bare == model._left_out_error(aggregate(backbone, [], "none", readout=model.readout))
    assert found.modules == pytest.approx(model.rank_modules(), rel=1e-4)
    assert found.best() == min(STRENGTHS, key=found.modules.get)
    assert found.aggregated == pytest.approx(model.eval()._left_out_error(model.aggregator), rel=1e-4)
    assert [record.message for record in caplog.records][-2:] == [found.order(), found.worth(model.gates)]
    path = stored(fit, tmp_path / "a.ckpt")
    again = downstream(backbone, data, own_zoo.path, aggregator=how)
    results(trainer(tmp_path), again, data, ckpt_path=path)
    assert again.ranking == found


def test_a_closed_zoo_is_said_to_be_unused(tmp_path, backbone, data, uneven, caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        still = {"epochs": 1, "optimizer": partial(SGD, lr=0.0)}
        model, _ = fitted(tmp_path, backbone, data, uneven, modules=["blind"], aggregator="ens_moe", **still)
        model.aggregator.scale_to(0.0)
        model.on_train_end()
    assert model.ranking.aggregated == pytest.approx(model.ranking.bare, rel=1e-5)
    assert caplog.records[-1].message.endswith("the gates are closed: the zoo is not used")


def test_gates_may_start_equal(tmp_path, backbone, data, zoo):
    model, _ = fitted(tmp_path, backbone, data, zoo, epochs=1, start="equal", optimizer=partial(SGD, lr=0.0))
    torch.testing.assert_close(model.gates, torch.full((4, 3), 1 / 3))


def test_training_lowers_the_left_out_error(tmp_path, backbone, data, zoo):
    options = {"start": "equal", "optimizer": partial(AdamW, lr=0.3), "fit_options": {"limit_val_batches": 0}}
    _, short = fitted(tmp_path, backbone, data, zoo, epochs=1, **options)
    _, long = fitted(tmp_path, backbone, data, zoo, epochs=15, **options)
    assert long.callback_metrics["train/left_out_error"] < short.callback_metrics["train/left_out_error"] - 5e-4


@pytest.mark.parametrize("options", [{}, {"head": "linear"}, {"aggregator": {"how": "ens_moe", "shrinkage": 1.0}}])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, backbone, data, zoo, options):
    options = {"optimizer": partial(SGD, lr=0.01, momentum=0.9), **options}
    whole = downstream(backbone, data, zoo, **options)
    keeping_checkpoints(tmp_path, epochs=2).fit(whole, datamodule=data)
    resumed = downstream(backbone, data, zoo, **options)
    trainer(tmp_path, epochs=2).fit(resumed, datamodule=data, ckpt_path=tmp_path / "epoch=0.ckpt")
    first, second = learned(whole), learned(resumed)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}])
def test_the_head_in_a_checkpoint_is_that_of_its_gates(tmp_path, backbone, data, zoo, options):
    model = downstream(backbone, data, zoo, optimizer=partial(SGD, lr=5.0))
    fit = keeping_checkpoints(tmp_path, epochs=3, **options)
    fit.fit(model, datamodule=data)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert paths
    for path in paths:
        state = torch.load(path, weights_only=True)["state_dict"]
        model.load_state_dict(state)
        model.fit_head()
        torch.testing.assert_close(model.head.weight.detach(), state["head.weight"], rtol=1e-5, atol=1e-7)


def test_a_linear_head_starts_from_the_closed_form(tmp_path, backbone, data, zoo):
    still = {"optimizer": partial(SGD, lr=0.0), "aggregator": "uniform"}
    linear, fit = fitted(tmp_path, backbone, data, zoo, head="linear", **still)
    ridge, _ = fitted(tmp_path, backbone, data, zoo, head="ridge", **still)
    assert fit.global_step > 0
    assert all(torch.equal(value, learned(ridge)[name]) for name, value in learned(linear).items())
    moving, _ = fitted(
        tmp_path, backbone, data, zoo, head="linear", aggregator="uniform", optimizer=partial(SGD, lr=1e-3)
    )
    assert not torch.equal(moving.head.weight, linear.head.weight)


def test_a_checkpoint_keeps_its_modules_when_the_zoo_grows(tmp_path, backbone, data, own_zoo):
    model, fit = fitted(tmp_path, backbone, data, own_zoo.path)
    path, before = stored(fit, tmp_path / "a.ckpt"), results(fit, model, data)
    own_zoo.add("a-newcomer", create_plugin("lora", backbone))
    grown = downstream(backbone, data, own_zoo.path)
    assert len(grown.module_names) == 4
    assert results(trainer(tmp_path), grown, data, ckpt_path=path) == before
    assert grown.module_names == list(STRENGTHS)
    # And it can be trained on.
    again = downstream(backbone, data, own_zoo.path)
    trainer(tmp_path, epochs=3).fit(again, datamodule=data, ckpt_path=path)
    assert again.gates.shape == (4, 3)


def test_a_checkpoint_of_other_modules_is_refused(tmp_path, backbone, data, own_zoo):
    _, fit = fitted(tmp_path, backbone, data, own_zoo.path)
    path = stored(fit, tmp_path / "a.ckpt")

    def refused(error, message, **options):
        model = downstream(backbone, data, own_zoo.path, **options)
        with pytest.raises(error, match=message):
            results(trainer(tmp_path), model, data, ckpt_path=path)

    refused(
        CheckpointError, r"aggregates \['calm', 'loud', 'wild'\], but modules=\['loud'\] was asked", modules=["loud"]
    )
    refused(CheckpointError, "does not fit this DownstreamModule", aggregator="router")
    refused(CheckpointError, "has the shape .* were the classes or settings changed", readout="last")
    changed = create_plugin("convpass", backbone, hidden=2)
    own_zoo.add("wild", changed, overwrite=True)
    refused(CheckpointError, "module 'wild' of the zoo .* is not the one that was aggregated")
    own_zoo.remove("wild")
    refused(ZooError, "unknown module of zoo .* 'wild'")


def test_named_modules_alone_are_loaded(tmp_path, backbone, data, own_zoo):
    stranger = tiny_backbone(seed=1)
    own_zoo.add("stranger", create_plugin("convpass", stranger))
    with pytest.raises(FingerprintError, match="stranger"):
        downstream(backbone, data, own_zoo.path)
    model, _ = fitted(tmp_path, backbone, data, own_zoo.path, modules=["wild", "calm"])
    assert model.module_names == ["wild", "calm"]
    assert model.gates.shape == (4, 2)


@pytest.mark.parametrize(
    ("how", "head"),
    [("ens_moe", "ridge"), ("ens_moe", "linear"), pytest.param("logit_ensemble", "ridge", marks=pytest.mark.slow)],
)
def test_several_labels_an_image(tmp_path, backbone, zoo, how, head):
    data = scenes("attributes", train=80, stage=DownstreamDataModule, batch_size=64)
    model, fit = fitted(tmp_path, backbone, data, zoo, aggregator=how, head=head, optimizer=partial(SGD, lr=1e-3))
    outcome = results(fit, model, data)
    assert 0 < outcome["test/average_precision"] <= 1
    labels = [label for batch in fit.predict(model, datamodule=data) for label in batch["label"]]
    assert len(labels) == 24


def test_discriminant_analysis_needs_one_label_an_image(tmp_path, backbone, zoo):
    data = scenes("attributes", train=200, stage=DownstreamDataModule)
    with pytest.raises(ConfigError, match="exactly one label an image; use 'ridge'"):
        fitted(tmp_path, backbone, data, zoo, head="lda")


def test_mixed_precision(tmp_path, backbone, data, zoo):
    precision = {"fit_options": {"precision": "bf16-mixed"}}
    options = {"modules": ["calm"], "optimizer": partial(AdamW, lr=1e-4), **precision}
    for head in ("ridge", "linear"):
        model, _ = fitted(tmp_path, backbone, data, zoo, head=head, **options)
        assert all(value.dtype == torch.float32 for value in learned(model).values())
        images, targets = data.arrays("train")
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            logits = model.eval()(images)
        assert torch.isfinite(logits).all()
        assert (logits.argmax(dim=1) == targets).float().mean() > 0.15


def test_accumulated_gradients(tmp_path, backbone, data, zoo):
    options = {"fit_options": {"accumulate_grad_batches": 2}, "optimizer": partial(SGD, lr=1.0)}
    small = digits(batch_size=15)
    _, fit = fitted(tmp_path, backbone, small, zoo, epochs=2, **options)
    assert fit.global_step == 2


def test_the_zoo_is_not_touched(tmp_path, backbone, data, own_zoo):
    before = {path.name: path.read_bytes() for path in own_zoo.path.iterdir()}
    fitted(tmp_path, backbone, data, own_zoo.path, optimizer=partial(SGD, lr=1.0), extra_module="lora")
    assert {path.name: path.read_bytes() for path in own_zoo.path.iterdir()} == before


def test_a_second_fit_goes_on(tmp_path, backbone, data, zoo):
    model, _ = fitted(tmp_path, backbone, data, zoo, optimizer=partial(SGD, lr=2.0), start="equal")
    gates = copy.deepcopy(model.gates)
    trainer(tmp_path, epochs=2).fit(model, datamodule=data)
    assert not torch.equal(model.gates, gates)
    weight = model.head.weight.detach().clone()
    model.fit_head()
    torch.testing.assert_close(model.head.weight.detach(), weight, rtol=1e-5, atol=1e-7)


def test_mistakes(tmp_path, backbone, data, zoo):
    cases = [
        (UnknownNameError, "unknown head 'rigde'; did you mean 'ridge'", {"head": "rigde"}),
        (UnknownNameError, "unknown start 'rank'; did you mean 'ranking'", {"start": "rank"}),
        (UnknownNameError, "aggregator 'ens_mo'; did you mean 'ens_moe'", {"aggregator": "ens_mo"}),
        (UnknownNameError, "'topk'; did you mean 'top_k'", {"aggregator": {"how": "ens_moe", "topk": 1}}),
        (ConfigError, "lack 'how', its name", {"aggregator": {"top_k": 1}}),
        (ConfigError, "top_k must lie between 1 and", {"aggregator": {"how": "router", "top_k": 9}}),
        (
            ConfigError,
            "'readout' is no setting of the aggregator; it stands beside it",
            {"aggregator": {"how": "router", "readout": "last"}},
        ),
        (UnknownNameError, "readout 'layer'", {"readout": "layer"}),
        (ZooError, "unknown module of zoo .* 'clam'; did you mean 'calm'", {"modules": ["clam"]}),
        (ZooError, "is empty; train a module first", {"zoo": tmp_path / "empty"}),
        (ZooError, "is not a directory", {"zoo": __file__}),
    ]
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            downstream(backbone, data, **{"zoo": zoo, **options})


def test_training_images_are_needed_in_order(tmp_path, backbone, data, zoo):
    model = downstream(backbone, data, zoo)
    images, targets = digits(preprocessing=backbone.preprocessing).arrays("train")
    batches = [{"image": images, "target": targets, "id": [""] * len(images)}]
    with pytest.raises(ConfigError, match="needs a DownstreamDataModule"):
        trainer(tmp_path).fit(model, batches)


def test_too_few_images_in_a_batch_are_named(tmp_path, backbone, zoo):
    with pytest.raises(DataError, match="at least 2 images, got 1"):
        fitted(tmp_path, backbone, digits(batch_size=1), zoo, start="equal")


def test_a_single_image_left_over_takes_no_step(tmp_path, backbone, zoo):
    data = digits(shots=1, batch_size=9)
    model = downstream(backbone, data, zoo, start="equal")
    fit = trainer(tmp_path, epochs=1)
    fit.fit(model, datamodule=data)
    assert fit.num_training_batches == 2
    assert torch.isfinite(fit.callback_metrics["train/left_out_error"])


def test_only_the_zoo_is_listed(zoo):
    assert Zoo(zoo).names() == list(STRENGTHS)
