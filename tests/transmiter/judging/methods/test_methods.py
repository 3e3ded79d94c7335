"""Methods: formulas against direct computations on a few images, and what every one of them keeps to."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_world import AUX, CLASSES

from vimlight.errors import ConfigError, UnknownNameError
from vimlight.transmiter import LogitCache, TransMiter, load_adapter
from vimlight.transmiter.judging.evaluation import evaluate
from vimlight.transmiter.judging.methods import (
    METHODS,
    Fit,
    Images,
    Labelled,
    Unsuitable,
    create_method,
    list_methods,
    prepare,
)
from vimlight.transmiter.judging.methods.columns import Columns

COUNT, NUM = len(CLASSES), 10
EVERY = pytest.mark.parametrize("name", list_methods())


def draw(rows=7, seed=0, **roles):
    """Logits of a few images by role, with the numbers of columns."""
    generator = torch.Generator().manual_seed(seed)
    return Images(
        {role: 3 * torch.randn(rows, columns, generator=generator) for role, columns in roles.items()}, (0, 1)
    )


def nothing(**changes):
    """What a method sees where there is nothing but logits to be scored."""
    roles = frozenset({"target", "target_all", "target_features", "source", "source_tuned", "target_tuned"})
    plain = Fit(CLASSES, CLASSES + AUX, tuple(range(COUNT)), roles, groups=(), scale=10.0)
    return dataclasses.replace(plain, **changes)


def log_p(logits):
    exponents = logits.double().exp()
    return (exponents / exponents.sum(dim=1, keepdim=True)).log()


@EVERY
def test_every_method_returns_finite_logits_of_each_image_alone(open_world, name):
    data = fit_of(open_world())
    method = create_method(name)
    prepare(method, data)
    (images,) = data.groups[0].batches(method.reads, None)
    with torch.no_grad():
        logits = method(images)
        assert logits.shape == (len(images), COUNT)
        assert logits.isfinite().all()
        some = Images({role: values[3:5] for role, values in images.tensors.items()}, images.columns)
        torch.testing.assert_close(method(some), logits[3:5], rtol=1e-4, atol=1e-4)
    assert method.num_parameters() >= 0
    assert method.title


@EVERY
def test_a_method_is_left_out_with_a_reason_where_what_it_needs_is_missing(name):
    method = create_method(name)
    bare = nothing(roles=frozenset())
    with pytest.raises(Unsuitable, match=r"needs .*--"):
        prepare(method, bare)


def fit_of(inputs, protocol="base_to_base"):
    """Returns what methods see in the small world."""
    from vimlight.transmiter.judging.evaluation import _fit_data
    from vimlight.transmiter.judging.protocols import PROTOCOLS, resolve_partition

    chosen = PROTOCOLS[protocol]()
    partition = resolve_partition(chosen, inputs.target.class_names, inputs.target.partitions, None)
    groups = chosen.groups(COUNT, partition)
    device = torch.device("cpu")
    candidates = tuple(inputs.candidates(group, inputs.rows(group), 4096, device) for group in groups)
    return _fit_data(inputs, chosen, candidates, partition, None, 0, device)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_eft_by_hand(alpha):
    images = draw(target=COUNT, source=COUNT, source_tuned=COUNT)
    found = create_method("eft", {"alpha": alpha})(images)
    change = log_p(images["source_tuned"]) - log_p(images["source"])
    torch.testing.assert_close(found.double(), log_p(images["target"]) + alpha * change, rtol=1e-5, atol=1e-5)


def test_eft_with_an_untouched_source_is_the_target():
    images = draw(target=COUNT, source=COUNT)
    same = Images({**images.tensors, "source_tuned": images["source"] + 5.0}, images.columns)
    torch.testing.assert_close(create_method("eft", {"alpha": 1.0})(same), images["target"].log_softmax(dim=1))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_ensemble_by_hand(weight):
    images = draw(target=COUNT, source_tuned=COUNT)
    found = create_method("logit_ensemble", {"weight": weight})(images)
    expected = weight * log_p(images["source_tuned"]) + (1 - weight) * log_p(images["target"])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_tip_adapter_by_hand():
    features = torch.nn.functional.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    labels = torch.tensor([0, 1, 2, 3, 4])
    train = Labelled(labels, lambda role: features[:5], frozenset({"target_features"}))
    method = create_method("tip_adapter", {"alpha": 2.0, "beta": 3.0})
    prepare(method, nothing(train=train))
    target = torch.randn(4, COUNT)
    found = method(Images({"target": target, "target_features": features[5:]}, ()))
    for image in range(4):
        for column in range(COUNT):
            similar = [features[5 + image] @ features[key] for key in range(5) if labels[key] == column]
            extra = sum(torch.exp(-3.0 * (1 - cosine)).item() for cosine in similar)
            # The published strength is meant for logits that are 100 times the cosine; here they are 10 times.
            assert found[image, column].item() == pytest.approx(target[image, column].item() + 0.2 * extra, abs=1e-5)


def test_the_ridge_solves_its_normal_equations(open_world):
    inputs = open_world()
    method = create_method("ridge", {"strength": 0.3})
    prepare(method, fit_of(inputs))
    logits = inputs.caches["target_train"].logits().double()
    x = (logits - logits.mean(dim=1, keepdim=True)) / logits.std(dim=1, keepdim=True)
    y = inputs.caches["source_tuned_train"].logits().double()
    y = y - y.mean(dim=1, keepdim=True)
    centred = x - x.mean(dim=0)
    gram = centred.T @ centred
    scaled = gram + 0.3 * gram.diagonal().mean() * torch.eye(NUM)
    weight = torch.linalg.solve(scaled, centred.T @ (y - y.mean(dim=0)))
    images = draw(target_all=NUM)
    z = images["target_all"].double()
    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True)
    expected = (z - x.mean(dim=0)) @ weight + y.mean(dim=0)
    torch.testing.assert_close(method(images).double(), expected, rtol=1e-3, atol=1e-3)


def test_gap_ridge_fits_here_what_its_file_would_hold(open_world, world, tmp_path):
    from vimlight.transmiter import fit_gap_ridge

    caches = [LogitCache.open(world[role]) for role in ("source_train", "source_tuned_train", "target_train")]
    fit_gap_ridge(*caches).save(tmp_path / "gap.safetensors")
    here = evaluate(open_world(), "base_to_base", methods=["gap_ridge"]).results["gap_ridge"]
    given = open_world("target_train", "source_train", "source_tuned_train", adapter=tmp_path / "gap.safetensors")
    filed = evaluate(given, "base_to_base", methods=["gap_ridge", "transmiter"])
    assert filed.results["gap_ridge"].scores == here.scores
    assert filed.results["gap_ridge"].choices["strength"] == here.choices["strength"]
    assert filed.left_out == {"transmiter": "needs --adapter"}, "a gap ridge is no TransMiter"


def test_gap_ridge_on_features_is_fitted_here_whatever_adapter_there_is(open_world, world, tmp_path):
    from vimlight.transmiter import fit_gap_ridge

    caches = [LogitCache.open(world[role]) for role in ("source_train", "source_tuned_train", "target_train")]
    fit_gap_ridge(*caches).save(tmp_path / "gap.safetensors")
    settings = {"gap_ridge": {"reads": "features"}}
    asked = evaluate(open_world(), "base_to_novel", methods=["gap_ridge"], settings=settings).results["gap_ridge"]
    given = open_world(gap_ridge=tmp_path / "gap.safetensors")
    found = evaluate(given, "base_to_novel", methods=["gap_ridge", "gap_ridge_features"]).results
    assert found["gap_ridge_features"].scores == asked.scores
    assert found["gap_ridge"].scores != asked.scores


def test_gap_ridge_plus_is_half_of_each_change(open_world):
    fit, images = fit_of(open_world()), draw(target_all=NUM, target_features=8, target_tuned=COUNT)
    plus, alone = create_method("gap_ridge_plus"), create_method("gap_ridge_features")
    for method in (plus, alone):
        prepare(method, fit)
    own = images["target_all"][:, :COUNT]
    expected = own + 0.5 * (alone(images) - own) + 0.5 * (images["target_tuned"] - own)
    torch.testing.assert_close(plus(images), expected)
    assert plus.num_parameters() == alone.num_parameters() > 0
    assert plus.made_with_labels


@pytest.mark.parametrize("reads", ["logits", "features"])
def test_gap_ridge_reads_logits_or_features(open_world, reads):
    found = evaluate(open_world(), "base_to_base", methods=["gap_ridge"], settings={"gap_ridge": {"reads": reads}})
    width = 8 if reads == "features" else NUM
    assert found.results["gap_ridge"].parameters == COUNT * width + COUNT


@pytest.mark.parametrize("role", ["adapter", "adapter_unmoved", "adapter_published", "adapter_plus"])
def test_transmiter_is_its_adapter_on_all_columns(open_world, world, role):
    names = {
        "adapter": "transmiter",
        "adapter_unmoved": "transmiter_no_basis_change",
        "adapter_published": "transmiter_published",
        "adapter_plus": "transmiter_plus",
    }
    method = create_method(names[role])
    prepare(method, fit_of(open_world()))
    images = draw(target_all=NUM)
    with torch.no_grad():
        expected = TransMiter.load(world[role])(images["target_all"])[:, :COUNT]
    torch.testing.assert_close(method(images), expected)
    assert not torch.allclose(expected, images["target_all"][:, :COUNT])


def test_without_auxiliary_classes_the_task_columns_are_all_there_is(open_world, world):
    method = create_method("transmiter_no_aux")
    prepare(method, fit_of(open_world()))
    images = draw(target_all=NUM)
    with torch.no_grad():
        expected = TransMiter.load(world["adapter_no_aux"])(images["target_all"][:, :COUNT])
    torch.testing.assert_close(method(images), expected)


def test_columns_are_found_by_name(world):
    adapter = load_adapter(world["adapter"])
    shuffled = torch.randperm(NUM, generator=torch.Generator().manual_seed(2))
    names = [(CLASSES + AUX)[index] for index in shuffled]
    data = nothing(class_names=tuple(names[:4]), column_names=tuple(names))
    logits = torch.randn(5, NUM)
    with torch.no_grad():
        found = Columns.of(adapter, data).apply(adapter, logits[:, shuffled])
        torch.testing.assert_close(found, adapter(logits)[:, shuffled[:4]])


@pytest.mark.parametrize(
    ("classes", "columns", "message"),
    [
        (CLASSES, (*CLASSES, "sun", *AUX[1:]), "the adapter reads 1 classes that the target lacks: 'car'"),
        (("sun", *CLASSES), ("sun", *CLASSES, *AUX), "the adapter does not know 1 of the classes: 'sun'"),
    ],
)
def test_classes_that_an_adapter_does_not_know_are_named(world, classes, columns, message):
    with pytest.raises(Unsuitable, match=message):
        Columns.of(load_adapter(world["adapter"]), nothing(class_names=classes, column_names=columns))


def test_an_adapter_without_names_goes_by_numbers():
    assert Columns.of(TransMiter(NUM, COUNT), nothing()) == Columns(None, None)
    assert Columns.of(TransMiter(COUNT, COUNT), nothing()).inputs.tolist() == list(range(COUNT))
    with pytest.raises(Unsuitable, match=r"the adapter takes 9 logits of 6 task classes, .* has 10 of 6"):
        Columns.of(TransMiter(9, COUNT), nothing())


def labelled(classes, count=60):
    labels = torch.arange(count) % len(classes)
    target = torch.randn(count, COUNT)
    # The source errs, the tuned one does not: all of the change is wanted, and more.
    source, tuned = torch.randn(count, COUNT), 3.0 * torch.nn.functional.one_hot(labels, COUNT)
    values = {"target": target, "source": source, "source_tuned": source + tuned}
    return Labelled(labels, values.__getitem__, frozenset(values))


class Group:
    """A group of which only the columns are known."""

    def __init__(self, *columns):
        self.name, self.columns, self.batches = "group", columns, None


@pytest.mark.parametrize("groups", [(Group(0, 1, 2),), (Group(0, 1, 2), Group(3, 4)), (Group(*range(COUNT)),)])
def test_alpha_is_chosen_on_the_classes_with_labels_whatever_is_scored_besides(groups):
    val, data = labelled([0, 1, 2]), nothing(groups=groups)
    chosen, given, kept = create_method("eft"), create_method("eft", {"alpha": 0.4}), create_method("eft")
    chosen.fit(dataclasses.replace(data, val=val))
    assert chosen.alpha > 1.0
    assert chosen.choices()["chosen"] == "log-loss on 60 validation images"
    assert val.used
    given.fit(dataclasses.replace(data, val=val))
    assert given.choices() == {"alpha": 0.4}
    kept.fit(data)
    assert kept.choices() == {"alpha": 1.0, "chosen": "no: no validation labels"}


@pytest.mark.parametrize("protocol", ["base_to_novel", "all_classes"])
@pytest.mark.parametrize("name", ["eft", "logit_ensemble", "tip_adapter"])
def test_settings_of_every_method_that_has_some_are_chosen_on_base_validation_images(open_world, name, protocol):
    found = evaluate(open_world(), protocol, methods=[name]).results[name]
    assert found.choices["chosen"].startswith("log-loss on ")
    assert found.labels


def test_alpha_is_the_best_of_its_grid():
    from vimlight.transmiter.judging.pooling import log_loss

    val = labelled([0, 1, 2])
    method = create_method("eft")
    method.fit(nothing(groups=(Group(0, 1, 2),), val=val))
    images = val.images(method.reads, (0, 1, 2))

    def loss(alpha):
        return log_loss(create_method("eft", {"alpha": alpha})(images)[:, :3], val.labels)

    assert loss(method.alpha) == min(loss(step / 10) for step in range(21))


MISTAKES = {
    "method": (("eftt", {}), "unknown method 'eftt'; did you mean 'eft'"),
    "setting": (("eft", {"alhpa": 1}), "unknown setting of method 'eft' 'alhpa'; did you mean 'alpha'"),
    "type": (("eft", {"alpha": "much"}), "method 'eft': .*alpha"),
    "alpha": (("eft", {"alpha": -1.0}), "alpha of 'eft' must be at least 0, got -1.0"),
    "weight": (("logit_ensemble", {"weight": 1.5}), "weight of 'logit_ensemble' must lie between 0 and 1, got 1.5"),
    "ridge": (("ridge", {"strength": 0.0}), "strength of 'ridge' must be above 0, got 0.0"),
    "gap ridge": (("gap_ridge", {"strength": -1.0}), "strength of 'gap_ridge' must be above 0"),
    "beta": (("tip_adapter", {"beta": -0.1}), "beta of 'tip_adapter' must be at least 0, got -0.1"),
    "prior": (("safe", {"prior": -1.0}), "prior of 'safe' must be at least 0"),
    "expert": (("safe", {"experts": ["eftt"]}), "unknown method 'eftt'"),
    "own expert": (("safe", {"experts": ["safe"]}), "'safe' cannot be one of its own experts"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistyped_methods_and_settings(mistake):
    (name, settings), message = MISTAKES[mistake]
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        create_method(name, settings)


def test_a_method_from_outside(open_world):
    from vimlight.transmiter.judging.methods import Method

    @METHODS.register("sharper")
    class Sharper(Method):
        """The target, twice as sure."""

        title = "target, twice as sure"

        def __call__(self, images):
            return 2 * images["target"]

    try:
        found = evaluate(open_world(), "base_to_base", methods=["sharper", "target_zero_shot"]).results
        assert found["sharper"].accuracies == found["target_zero_shot"].accuracies
        assert found["sharper"].scores["accuracy"].log_loss != found["target_zero_shot"].scores["accuracy"].log_loss
    finally:
        del METHODS._entries["sharper"]
