"""The promise with its noise: distances to the better of two models, and what is no accident."""

from __future__ import annotations

import pytest
import torch

from vimlight.transmiter.judging.evaluation import Evaluation, Result
from vimlight.transmiter.judging.margins import Margin, margins, mcnemar
from vimlight.transmiter.judging.protocols import Group


@pytest.mark.parametrize(
    ("gained", "lost", "expected"), [(0, 0, 1.0), (1, 1, 1.0), (0, 5, 0.0625), (0, 6, 0.03125), (6, 0, 0.03125)]
)
def test_mcnemar_is_a_sign_test_of_the_images_that_one_alone_has_right(gained, lost, expected):
    first = torch.tensor([True] * gained + [False] * lost + [True] * 4 + [False] * 3)
    second = torch.tensor([False] * gained + [True] * lost + [True] * 4 + [False] * 3)
    assert mcnemar(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("difference", "p", "level", "expected"),
    [(-0.02, 0.04, 0.05, True), (-0.004, 0.04, 0.05, False), (-0.02, 0.06, 0.05, False), (-0.02, 0.04, 0.01, False),
     (0.02, 0.001, 0.05, False)],
)  # fmt: skip
def test_a_promise_is_broken_by_more_than_half_a_point_and_beyond_the_noise(difference, p, level, expected):
    assert Margin(difference, p).broken(level) == expected


def _evaluation(columns, answers):
    groups = tuple(Group(name, (place,), columns[name]) for place, name in enumerate(columns))
    labels = {name: torch.tensor([1, 1, 1, 1]) for name in columns}

    def result(said):
        predictions = {name: torch.tensor(values) for name, values in said.items()}
        return Result("", "", {}, {}, {}, False, 0, (), 0.0, 0.0, predictions)

    return Evaluation("", (), groups, {name: result(said) for name, said in answers.items()}, labels=labels)


def test_margins_are_to_the_better_model_of_each_group():
    half = {"base": (0, 1), "novel": (2, 3)}
    found = margins(_evaluation(half, {
        "target_zero_shot": {"base": [1, 1, 1, 0], "novel": [0, 0, 0, 0]},
        "source_tuned": {"base": [1, 0, 0, 0], "novel": [1, 1, 0, 0]},
        "eft": {"base": [1, 1, 1, 1], "novel": [0, 0, 0, 0]},
    }))  # fmt: skip
    assert found["eft"]["base"].difference == pytest.approx(0.25)
    assert found["eft"]["novel"].difference == pytest.approx(-0.5)
    assert found["eft"]["novel"].p == pytest.approx(0.5)
    assert found["target_zero_shot"]["base"].difference == 0


def test_images_that_are_told_from_all_classes_are_one_group():
    answers = {"base": [1, 1, 1, 1], "novel": [0, 0, 0, 0]}
    both = {"base": (0, 1), "novel": (0, 1)}
    found = margins(_evaluation(both, dict.fromkeys(("target_zero_shot", "source_tuned"), answers)))
    assert set(found["source_tuned"]) == {"all"}
