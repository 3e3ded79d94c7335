"""The bars of transfers are differences of rows over data sets and directions, seed by seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.real import transfer_bars
from benchmarks.real.transfer_bars import BARS, cases_in, difference, main, promise
from vimlight.transmiter.judging.methods.safe import PROMISED

ROWS = yaml.safe_load(Path(transfer_bars.__file__).with_name("transfer.yaml").read_text())["methods"]


@pytest.fixture
def folder(tmp_path):
    """Two data sets and two seeds, in which `safe` wins but for one group, and all others are level."""
    (tmp_path / "results").mkdir()
    for n, dataset in enumerate(("stamps", "flags")):
        for seed in (0, 1):
            methods = {name: one(0.5) for name in ROWS}
            methods["safe"] = one(0.6 + 0.1 * seed - 0.04 * n, broken=n == 1)
            content = {"transfer": f"{dataset}, seed {seed}, lite0 to lite2, TaskRes", "methods": methods}
            (tmp_path / "results" / f"{dataset}{seed}.json").write_text(json.dumps(content))
    return tmp_path


def one(value, broken=False):
    margin = {"difference": -0.1 if broken else 0.1, "p": 0.02}
    return {
        "accuracies": dict.fromkeys(("base", "novel", "harmonic", "all"), value),
        "margins": {"base": margin, "novel": {"difference": 0.0, "p": 1.0}},
    }


def test_a_bar_is_a_difference_in_points_with_its_worst_data_set(folder):
    found, worst = difference(cases_in(folder), "safe", "eft", "harmonic")
    assert found.seeds == pytest.approx({"0": 8.0, "1": 18.0})
    assert worst == ("flags, lite0 to lite2, TaskRes", pytest.approx(11))
    assert promise(cases_in(folder), "safe") == (2, 0, 8)


def test_what_is_met_and_missed_is_printed(folder, capsys):
    main([str(folder)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "least" in line or "promise" in line]
    safe, novel, *_ = [row for row in rows if row[1] == "safe"]
    assert safe[11:13] == ["+13.00", "±"]
    assert all("met" in row for row in (safe, novel))
    assert all("missed" in row for row in rows if row[1:4] == ["transmiter", "│", "eft"])
    assert "missed" in next(row for row in rows if row[1:4] == ["safe", "│", "promise"])


def test_a_folder_without_results_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "there are no results of transfers in" in capsys.readouterr().err


def test_every_row_of_a_bar_is_in_the_plan():
    assert set(ROWS) >= {name for bar in BARS for name in (bar.ours, *bar.theirs)} | set(PROMISED)
