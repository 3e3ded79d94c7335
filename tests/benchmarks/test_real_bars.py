"""The bars of the real suite are differences of rows, averaged over tasks, seed by seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.real import bars
from benchmarks.real.bars import BARS, Bar, main, measured
from vimlight.comparison.reading import read_plan
from vimlight.comparison.standings import standings_of


def records(**values):
    """Returns records of two tasks and two seeds; a row's values are those of the tasks, 0.1 more with seed 1."""
    return [
        {
            "backbone": "b", "task": f"task {n}", "method": method, "shots": 5, "seed": seed, "metric": "accuracy",
            "mode": "max", "value": value + 0.1 * seed, "parameters": 1, "flops": 1.0,
        }
        for method, pair in values.items()
        for n, value in enumerate(pair)
        for seed in (0, 1)
    ]  # fmt: skip


def test_a_bar_is_a_difference_in_points_with_its_worst_task():
    [table] = standings_of(records(none=(0.5, 0.2), select=(0.6, 0.15)), "none")
    found, worst = measured(table, Bar("select", "none", 5, 3.0))
    assert found.seeds == pytest.approx({0: 2.5, 1: 2.5})
    assert worst == ("task 1", pytest.approx(-5))
    assert measured(table, Bar("select", "uniform", 5, 0.3)) == (None, None)


def test_what_is_met_missed_and_missing_is_printed(tmp_path, capsys):
    found = records(none=(0.5, 0.2), select=(0.6, 0.2), uniform=(0.6, 0.2))
    (tmp_path / "results.json").write_text(json.dumps({"records": found}))
    main([str(tmp_path)])
    rows = [line for line in capsys.readouterr().out.splitlines() if " select " in line and " 5 " in line]
    assert "met" in next(row for row in rows if " none " in row)
    assert "missed" in next(row for row in rows if " uniform " in row)
    assert "—" in next(row for row in rows if " k_streams " in row)


def test_every_row_of_a_bar_is_in_the_suite():
    pytest.importorskip("peft")
    plan = read_plan(Path(bars.__file__).with_name("suite.yaml"))
    methods = {method.label: method for method in plan.methods}
    for bar in BARS:
        for label in (bar.ours, bar.theirs):
            assert methods[label].shots is None or bar.shots in methods[label].shots
