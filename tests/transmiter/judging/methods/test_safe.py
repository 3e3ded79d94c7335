"""The safe mixture on constructed cases: what it may not do, and what it gains."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vimlight.transmiter.judging.methods import (
    METHODS,
    Candidates,
    Fit,
    Images,
    Labelled,
    Method,
    Unsuitable,
    create_method,
    prepare,
)
from vimlight.transmiter.judging.methods.safe import ADAPTED, EXPERTS, PROMISED

CLASSES = tuple("abcdef")
BASE, NOVEL = (0, 1, 2), (3, 4, 5)
MODELS = ("target", "source", "source_tuned")


def world(skill, count, columns, seed):
    """Logits of the three models, which see the truth through noise with some skill, and the labels.

    Args:
        skill: By role: how much of the truth it sees, a number, or one for base and one for novel classes.
        count: Number of images.
        columns: The classes they are of.
        seed: Decides noise and labels.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(columns)[torch.randint(len(columns), (count,), generator=generator)]
    novel = torch.isin(labels, torch.tensor(NOVEL)).float()[:, None]
    found = {}
    for role in MODELS:
        low, high = skill[role] if isinstance(skill[role], tuple) else (skill[role],) * 2
        strength = low + (high - low) * novel
        found[role] = strength * F.one_hot(labels, 6) + torch.randn(count, 6, generator=generator)
    return found, labels


def prepared(skill, groups, known=tuple(range(6)), *, val=200, test=4000, seed=0, change=None, **settings):
    """Fits the mixture of target, tuned source and EFT; returns it with images and labels of each group."""
    roles = frozenset(MODELS)
    scored, candidates = {}, []
    for place, (name, (classes, columns)) in enumerate(groups.items()):
        logits, labels = world(skill, test, classes, 100 * seed + place)
        if change:
            logits = change(logits)
        scored[name] = Images(logits, columns), labels
        candidates.append(
            Candidates(
                name,
                columns,
                lambda roles, limit, logits=logits, columns=columns: iter(
                    [Images({role: values[:limit] for role, values in logits.items()}, columns)]
                ),
            )
        )
    labelled = None
    if val and known:
        logits, labels = world(skill, val, known, 100 * seed + 99)
        values = change(logits) if change else logits
        labelled = Labelled(labels, values.__getitem__, roles)
    method = create_method("safe", {"experts": ["source_tuned", "eft"], **settings})
    prepare(method, Fit(CLASSES, CLASSES, known, roles, tuple(candidates), val=labelled))
    return method, scored


def accuracy(logits, images, labels):
    columns = torch.tensor(images.columns)
    return (columns[logits[:, columns].argmax(dim=1)] == labels).float().mean().item()


def scores(method, images, labels):
    """Accuracy of the mixture, and of the better model of the promise."""
    alone = [accuracy(create_method(name)(images), images, labels) for name in PROMISED]
    return accuracy(method(images), images, labels), max(alone)


ALL = {"accuracy": (tuple(range(6)), tuple(range(6)))}
APART = {"base": (BASE, BASE), "novel": (NOVEL, NOVEL)}
TOGETHER = {"base": (BASE, tuple(range(6))), "novel": (NOVEL, tuple(range(6)))}
SKILLS = {
    "tuning helped": {"target": 1.5, "source": 1.0, "source_tuned": 2.0},
    "tuning hurt": {"target": 2.0, "source": 1.5, "source_tuned": 0.3},
    "a useless source": {"target": 2.0, "source": 0.0, "source_tuned": 0.0},
    "a source that lies": {"target": 2.0, "source": 0.0, "source_tuned": -2.0},
    "a useless target": {"target": 0.0, "source": 1.0, "source_tuned": 2.5},
    "nothing to gain": {"target": 2.0, "source": 2.0, "source_tuned": 2.0},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("skill", list(SKILLS))
def test_with_labels_it_is_never_clearly_below_the_better_model(skill, seed):
    method, scored = prepared(SKILLS[skill], ALL, seed=seed)
    ((images, labels),) = scored.values()
    mine, better = scores(method, images, labels)
    # Two standard errors of a share of 4,000 images.
    assert mine >= better - 0.016
    assert "log-loss on 200 validation images" in method.choices()["blocks"][0]["chosen"]


def test_where_models_know_different_things_it_is_above_all_of_them():
    method, scored = prepared(SKILLS["tuning helped"], ALL)
    ((images, labels),) = scored.values()
    mine, better = scores(method, images, labels)
    assert mine > max(better, accuracy(create_method("eft", {"alpha": 1.0})(images), images, labels)) + 0.02


@pytest.mark.parametrize("factor", [0.01, 30.0])
def test_how_sure_an_expert_sounds_does_not_matter(factor):
    def louder(logits):
        return {**logits, "source_tuned": factor * logits["source_tuned"]}

    plain, loud = (
        prepared(SKILLS["tuning helped"], ALL, change=how, experts=["source_tuned"]) for how in (None, louder)
    )
    for method in (plain, loud):
        ((images, labels),) = method[1].values()
        assert scores(method[0], images, labels)[0] > 0.7
    weights = [m.choices()["blocks"][0]["weights"] for m, _ in (plain, loud)]
    assert weights[0] == pytest.approx(weights[1], abs=0.01)


@pytest.mark.parametrize("groups", [APART, TOGETHER], ids=["apart", "together"])
def test_classes_without_labels_pool_all_experts_equally(groups):
    skill = {"target": 1.5, "source": 1.0, "source_tuned": (3.0, 1.5)}
    method, scored = prepared(skill, groups, known=BASE, val=0)
    images, labels = scored["novel"]
    refined, target = method(images), images["target"].log_softmax(dim=1)
    torch.testing.assert_close(refined.exp().sum(dim=1), torch.ones(len(labels)))
    share = target[:, BASE].exp().sum(dim=1)
    torch.testing.assert_close(refined[:, BASE].exp().sum(dim=1), share)
    block = method.choices()["blocks"][-1]
    assert block["chosen"] == "no evidence: equal weights"
    assert block["weights"] == pytest.approx(dict.fromkeys(block["weights"], 1 / 3), abs=1e-4)
    among = Images(images.tensors, NOVEL)
    mine, better = scores(method, among, labels)
    # Experts that see different sides of the truth are better together than the best of them.
    assert mine > better + 0.02


ENCODERS = {
    "the target's is better": ({"target": 2.5, "source": 0.3, "source_tuned": (3.0, 0.3)}, (0.9, 1.0)),
    "the source's is better": ({"target": 0.3, "source": 2.5, "source_tuned": (3.0, 2.5)}, (0.0, 0.1)),
}


@pytest.mark.parametrize("case", list(ENCODERS))
def test_of_classes_without_labels_the_better_encoder_has_the_say(case):
    skill, (least, most) = ENCODERS[case]
    method, scored = prepared(skill, APART, known=BASE, experts=["source_tuned"])
    block = method.choices()["blocks"][-1]
    assert least <= block["weights"]["target_zero_shot"] <= most
    assert "target's encoder the better one with probability" in block["chosen"]
    mine, better = scores(method, *scored["novel"])
    assert mine >= better - 0.016


def test_by_default_both_models_speak_before_and_after_tuning_and_one_adapter(monkeypatch):
    asked = []

    class Told(_Helper):
        def fit(self, data):
            asked.append(type(self))

    for name in ADAPTED[1:]:
        monkeypatch.setitem(METHODS._entries, name, type(name, (Told,), {"title": name}))
    method, _ = prepared(SKILLS["tuning helped"], ALL, experts=None)
    # The first needs caches that are not there, the second speaks, and the third is not even fitted.
    assert list(method.choices()["blocks"][0]["weights"]) == [*EXPERTS, ADAPTED[1]]
    assert [kind.__name__ for kind in asked] == [ADAPTED[1]]


def test_weights_fitted_on_tuned_classes_are_not_used_for_others():
    skill = {"target": 2.0, "source": 2.0, "source_tuned": (4.0, 0.0)}
    method, scored = prepared(skill, APART, known=BASE)
    images, labels = scored["novel"]
    tuned, others = method.choices()["blocks"]
    assert tuned["weights"]["target_zero_shot"] < others["weights"]["target_zero_shot"]
    # The tuned source has forgotten these classes, and EFT with it.
    assert accuracy(method(images), images, labels) > accuracy(images["source_tuned"], images, labels) + 0.1


def test_where_nothing_was_tuned_on_the_classes_all_weigh_the_same():
    method, _ = prepared(SKILLS["tuning helped"], ALL, known=())
    (block,) = method.choices()["blocks"]
    assert block["chosen"] == "no evidence: equal weights"


@pytest.mark.parametrize("kind", ["noise", "always the same", "another order"])
def test_without_labels_an_expert_that_talks_nonsense_loses_its_say(kind):
    def nonsense(logits):
        wrong = {
            "noise": 30 * torch.randn(logits["source"].shape, generator=torch.Generator().manual_seed(5)),
            "always the same": 30.0 * F.one_hot(torch.zeros(len(logits["source"]), dtype=torch.long), 6),
            "another order": 10 * logits["target"].roll(2, dims=1),
        }
        return {**logits, "source_tuned": logits["source"] + wrong[kind]}

    skill = {"target": 2.0, "source": 1.5, "source_tuned": 0.0}
    helper = _Helper.register()
    try:
        experts = ["source_tuned", "source_zero_shot", "helper"]
        method, scored = prepared(skill, ALL, val=0, change=nonsense, experts=experts)
    finally:
        helper()
    ((images, labels),) = scored.values()
    mine, better = scores(method, images, labels)
    assert method.choices()["blocks"][0]["weights"]["source_tuned"] < 0.1
    assert "agreement on 4000 unlabelled images" in method.choices()["blocks"][0]["chosen"]
    assert mine >= better - 0.016


class _Helper(Method):
    """A third honest expert, right where the weak and the strong model agree."""

    title = "helper"
    reads = ("target", "source")

    def __call__(self, images):
        return images["target"] + images["source"]

    @classmethod
    def register(cls):
        METHODS.register("helper")(cls)
        return lambda: METHODS._entries.pop("helper")


def test_without_labels_a_good_pool_is_still_above_the_better_model():
    method, scored = prepared(SKILLS["tuning helped"], ALL, val=0)
    ((images, labels),) = scored.values()
    mine, better = scores(method, images, labels)
    assert mine > better


def test_a_pool_that_proves_nothing_gives_way_to_the_better_model():
    method, scored = prepared(SKILLS["a useless source"], ALL, val=12, seed=4)
    weights = method.choices()["blocks"][0]["weights"]
    assert sum(weight > 0 for weight in weights.values()) == 1
    ((images, labels),) = scored.values()
    mine, _ = scores(method, images, labels)
    assert mine == accuracy(images["target"], images, labels)


def test_what_the_weights_are_by_an_independent_search():
    from scipy.optimize import minimize

    method, _ = prepared(SKILLS["tuning helped"], ALL, prior=0.0)
    logits, labels = world(SKILLS["tuning helped"], 200, tuple(range(6)), 99)
    logs = {role: values.double().log_softmax(dim=1) for role, values in logits.items()}
    experts = torch.stack([
        logs["target"], logs["source_tuned"], logs["target"] + logs["source_tuned"] - logs["source"],
    ]).log_softmax(dim=2)  # fmt: skip
    found = minimize(
        lambda weights: F.cross_entropy(torch.einsum("k,knc->nc", torch.tensor(weights), experts), labels).item(),
        [0.3] * 3, bounds=[(0, None)] * 3,
    )  # fmt: skip
    mine = method._blocks[0].weights
    loss = F.cross_entropy(torch.einsum("k,knc->nc", mine, experts), labels).item()
    assert loss == pytest.approx(found.fun, abs=1e-4)


def test_alone_it_is_left_out():
    data = Fit(CLASSES, CLASSES, BASE, frozenset({"target"}), groups=())
    with pytest.raises(Unsuitable, match="needs --source-tuned, --adapter or another expert to mix with the target"):
        prepare(create_method("safe"), data)


def test_the_promised_models_are_among_the_experts():
    assert set(PROMISED) <= set(EXPERTS)
