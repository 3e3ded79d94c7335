"""Standings: intervals, paired differences, wins, ranks and marks, against figures worked out by hand."""

from __future__ import annotations

import csv
import io
import math

import pytest

from vimlight.comparison.standings import half_width, standings_of
from vimlight.comparison.tables import csv_text, header, markdown, rich_tables, rows
from vimlight.report.tables import Statistic

VALUES = {
    ("none", "birds"): [0.50, 0.52, 0.54],
    ("zoo", "birds"): [0.60, 0.62, 0.64],
    ("close", "birds"): [0.62, 0.60, 0.63],
    ("none", "maps"): [0.30, 0.32, 0.31],
    ("zoo", "maps"): [0.20, 0.22, 0.21],
    ("close", "maps"): [0.30, 0.33, 0.30],
    ("none", "boxes"): [0.10, 0.20, 0.30],
    ("zoo", "boxes"): [0.11, 0.19, 0.30],
    ("close", "boxes"): [0.40, 0.50, 0.60],
}
METRICS = {"birds": ("accuracy", "max"), "maps": ("abs_rel", "min"), "boxes": ("ap", "max")}


def records(tasks=tuple(METRICS), seeds=3, shots=5):
    return [
        {
            "backbone": "vit", "task": task, "method": method, "shots": shots, "seed": seed, "metric": METRICS[task][0],
            "mode": METRICS[task][1], "value": value, "parameters": 1000, "flops": 1.25, "seconds": 1.0,
        }
        for (method, task), values in VALUES.items()
        if task in tasks
        for seed, value in enumerate(values[:seeds])
    ]  # fmt: skip


@pytest.fixture
def table():
    return standings_of(records(), "none")[0]


def test_intervals_are_student_s():
    # 2 degrees of freedom: 4.3027 standard errors.
    assert half_width(Statistic({0: 0.60, 1: 0.62, 2: 0.64})) == pytest.approx(4.30265 * 0.02 / math.sqrt(3), rel=1e-4)
    assert math.isnan(half_width(Statistic({0: 1.0})))


def test_means_of_groups_stand_beside_the_average():
    group = {"birds": "animals", "fish": "animals", "maps": "places", "boxes": "places"}
    extra = [{**record, "task": "fish"} for record in records(["birds"])]
    (table,) = standings_of([{**record, "group": group[record["task"]]} for record in records() + extra], "none")
    assert table.grouped == [["birds", "fish"], ["boxes"]]
    assert table.average("zoo").mean == pytest.approx((0.62 + 0.62 + 0.2) / 3)
    assert table.average_of_groups("zoo").mean == pytest.approx((0.62 + 0.2) / 2)
    assert header(table)[5:7] == ["average", "mean of groups"]
    assert rows(table)[1][6].text.startswith("41.0")
    assert "vit,5,zoo,mean of groups,,0.41," in csv_text([table])


def test_groups_that_are_none_have_no_mean(table):
    assert table.grouped == []
    assert table.average_of_groups("zoo") is None
    assert "mean of groups" not in header(table)


def test_differences_are_seed_by_seed_and_positive_where_better(table):
    assert list(table.against_reference("zoo", "birds").seeds.values()) == pytest.approx([0.1] * 3)
    assert list(table.against_reference("zoo", "maps").seeds.values()) == pytest.approx([0.1] * 3)
    # Errors are in no average of points.
    assert table.averaged == ["birds", "boxes"]
    assert table.average("zoo").mean == pytest.approx((0.62 + 0.2) / 2)
    assert table.average_against_reference("zoo").mean == pytest.approx(0.05)


def test_wins_ties_and_losses_go_by_the_interval(table):
    assert table.wins_ties_losses("zoo") == (2, 1, 0)
    assert table.wins_ties_losses("none") == (0, 3, 0)
    assert standings_of(records(), "zoo")[0].wins_ties_losses("none") == (0, 1, 2)


def test_ranks_are_means_over_tasks(table):
    # On the maps, where less is better, the means of none and close are 0.31 both, to the last bit or not.
    assert table.ranks["zoo"] == pytest.approx((1 + 1 + 2.5) / 3)
    assert table.ranks["none"] + table.ranks["close"] == pytest.approx((3 + 2 + 5 + 2.5 + 1) / 3)


def test_the_best_is_bold_and_what_does_not_differ_is_marked(table):
    found = {row[0].text: row for row in rows(table)}
    assert found["zoo"][1] == ("62.0 ± 2.0", True)
    assert found["close"][1] == ("61.7 ± 1.5 ≈", False)
    assert found["none"][1] == ("52.0 ± 2.0", False)
    assert found["zoo"][2] == ("0.210 ± 0.010", True)
    assert found["none"][5].text == "—"
    assert "**62.0 ± 2.0**" in markdown([table])


def test_one_seed_has_no_interval_and_no_marks():
    table = standings_of(records(seeds=1), "none")[0]
    texts = [cell.text for row in rows(table) for cell in row]
    assert not any("±" in text or "≈" in text for text in texts)
    assert table.wins_ties_losses("zoo") == (3, 0, 0)


def test_with_all_labels_equal_seeds_are_one_fit_without_an_interval():
    same = [{**record, "shots": "full", "value": VALUES[record["method"], record["task"]][0]} for record in records()]
    alone = [{**record, "shots": "full"} for record in records(seeds=1)]
    assert markdown(standings_of(same, "none")) == markdown(standings_of(alone, "none"))
    drawn = [{**record, "shots": "full"} for record in records()]
    assert "±" in markdown(standings_of(drawn, "none")).splitlines()[4]
    # A task whose heads are learnt keeps its spread; an average with tasks of one fit has none.
    mixed = [a if a["task"] == "birds" else b for a, b in zip(drawn, same, strict=True)]
    [table] = standings_of(mixed, "none")
    assert len(table.cells["zoo", "birds"].seeds) == 3
    assert len(table.cells["zoo", "boxes"].seeds) == len(table.average("zoo").seeds) == 1


def test_what_is_missing_leaves_gaps():
    some = [record for record in records() if (record["method"], record["task"]) != ("zoo", "boxes")]
    table = standings_of(some, "none")[0]
    row = {cells[0].text: cells for cells in rows(table)}["zoo"]
    assert row[3].text == "—"
    assert table.average("zoo") is None
    assert "zoo" not in table.ranks


def test_a_single_task_of_errors_has_differences_in_its_own_unit():
    table = standings_of(records(tasks=("maps",)), "none")[0]
    assert "average" not in header(table)
    assert {row[0].text: row[2].text for row in rows(table)}["zoo"] == "+0.100 ± 0.000"


def test_csv_has_a_line_for_each_method_and_task(table):
    lines = list(csv.DictReader(io.StringIO(csv_text([table]))))
    assert len(lines) == 3 * 4
    zoo = next(line for line in lines if (line["method"], line["task"]) == ("zoo", "birds"))
    assert (float(zoo["mean"]), int(zoo["seeds"]), float(zoo["difference"])) == (0.62, 3, 0.1)


def test_wide_tables_are_printed_in_two_parts(table):
    assert len(rich_tables([table], 500)) == 1
    assert len(rich_tables([table], 60)) == 2


def test_backbones_and_shots_have_tables_of_their_own():
    found = standings_of([*records(), *records(shots="full")], "none")
    assert [table.shots_text for table in found] == ["5-shot", "all labels"]
