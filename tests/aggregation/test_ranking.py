"""What is said of a zoo's worth."""

from __future__ import annotations

import pytest
import torch

from vimlight.aggregation.ranking import Ranking

OPEN, SHUT = torch.full((2, 2), 0.5), torch.full((2, 2), 0.004)


def ranking(aggregated=None, bare=0.08):
    return Ranking(50, bare, {"loud": 0.1, "calm": 0.06}, "ens_moe", aggregated)


def test_the_order_names_the_best_module_first():
    assert ranking().order() == (
        "modules by leave-one-out error on 50 images: calm 0.0600, loud 0.1000; bare backbone 0.0800"
    )


@pytest.mark.parametrize(
    ("aggregated", "gates", "end"),
    [
        (0.04, OPEN, "ens_moe 0.0400: 50.0% less than bare"),
        (0.08, OPEN, "ens_moe 0.0800: here the zoo is worth nothing"),
        (0.09, OPEN, "ens_moe 0.0900: here the zoo is worth nothing"),
        (0.08, SHUT, "ens_moe 0.0800; the gates are closed: the zoo is not used"),
        (0.04, torch.zeros(0, 2), "ens_moe 0.0400: 50.0% less than bare"),
    ],
)
def test_one_line_says_what_the_zoo_is_worth(aggregated, gates, end):
    start = "the zoo by leave-one-out error on 50 images: bare backbone 0.0800, best single module (calm) 0.0600, "
    assert ranking(aggregated).worth(gates) == start + end


def test_a_task_that_the_bare_backbone_solves_leaves_nothing_to_gain():
    assert ranking(0.0, bare=0.0).worth(OPEN).endswith("here the zoo is worth nothing")


def halved(**changes):
    fields = {"images": 50, "bare": 0.08, "modules": {"calm": 0.06, "early": 0.02, "loud": 0.1}, "how": "ens_moe"}
    return Ranking(**{**fields, "judged_on": {"early": 10}, "bare_on": {10: 0.04, 50: 0.08}, **changes})


def test_who_was_judged_on_fewer_images_comes_behind_and_is_compared_on_these():
    assert halved().names() == ["calm", "loud", "early"]
    assert halved().best() == "calm"
    assert halved().order() == (
        "modules by leave-one-out error on 50 images: calm 0.0600, loud 0.1000, 1 more on fewer images; "
        "bare backbone 0.0800"
    )
    assert [row[1:] for row in halved().rows()] == [
        ["calm", 0.06, pytest.approx(0.02), 50],
        ["bare backbone", 0.08, 0.0, 50],
        ["loud", 0.1, pytest.approx(-0.02), 50],
        ["early", 0.02, pytest.approx(0.02), 10],
    ]
    assert halved().comparable("early") == pytest.approx(0.04)
    assert halved().comparable("calm") == 0.06


def test_a_ranking_by_halving_comes_back_from_a_checkpoint():
    assert Ranking.from_dict(halved().as_dict()) == halved()
    before = {key: value for key, value in ranking().as_dict().items() if key not in ("judged_on", "bare_on")}
    assert Ranking.from_dict(before) == ranking()


@pytest.mark.parametrize(
    "changes",
    [{"judged_on": {"early": "10"}}, {"judged_on": {"nobody": 10}}, {"bare_on": {50: 0.08}}, {"bare_on": {10: "x"}}],
)
def test_what_is_no_ranking_is_refused(changes):
    with pytest.raises(TypeError, match="must be"):
        Ranking.from_dict(halved(**changes).as_dict())


def test_rows_rank_everything_that_was_measured():
    rows = ranking(0.05).rows()
    assert [row[:3] for row in rows] == [
        [1, "ens_moe", 0.05], [2, "calm", 0.06], [3, "bare backbone", 0.08], [4, "loud", 0.1],
    ]  # fmt: skip
    assert [row[3] for row in rows] == pytest.approx([0.03, 0.02, 0.0, -0.02])
    assert len(ranking().columns()) == len(rows[0])
    assert len(ranking().rows()) == len(rows) - 1


def test_loggers_and_checkpoints_get_the_figures():
    assert ranking(0.05).scores() == {"zoo/bare": 0.08, "zoo/best_single": 0.06, "zoo/aggregated": 0.05}
    assert Ranking(**ranking(0.05).as_dict()) == ranking(0.05)
