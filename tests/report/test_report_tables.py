"""Result tables: statistics, averages, formats, files."""

from __future__ import annotations

import json
import math

import pytest
from rich.console import Console

from vimlight.errors import ConfigError, DataError, UnknownNameError
from vimlight.report.tables import Column, MethodFacts, summarise

VALUES = {
    ("ViM", "digits", 5): [0.70, 0.72, 0.77],
    ("ViM", "fashion", 5): [0.60, 0.61, 0.62],
    ("probe", "digits", 5): [0.68, 0.66, 0.70],
    ("probe", "fashion", 5): [0.50],
    ("alone", "digits", 5): [0.5, 0.5, 0.5],
}
RECORDS = [
    {"method": method, "task": task, "shots": shots, "seed": seed, "metric": "accuracy", "value": value}
    for (method, task, shots), values in VALUES.items()
    for seed, value in enumerate(values)
]
FACTS = {"ViM": MethodFacts(12_345, 1.094), "probe": MethodFacts(990, 1.0)}


@pytest.fixture
def table():
    return summarise(RECORDS, FACTS)


def test_mean_and_sample_deviation(table):
    cell = table.cells["ViM", Column("digits", 5)]
    assert cell.mean == pytest.approx(0.73)
    assert cell.std == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert math.isnan(table.cells["probe", Column("fashion", 5)].std)


def test_average_is_over_tasks_for_each_seed_first(table):
    assert table.columns[-1] == Column("average", 5)
    cell = table.cells["ViM", Column("average", 5)]
    assert cell.seeds == pytest.approx({0: 0.65, 1: 0.665, 2: 0.695})
    assert set(table.cells["probe", Column("average", 5)].seeds) == {0}
    assert ("alone", Column("average", 5)) not in table.cells


def test_one_task_has_no_average():
    table = summarise([record for record in RECORDS if record["task"] == "digits"])
    assert [str(column) for column in table.columns] == ["digits 5-shot"]


def test_rows_as_text(table):
    assert table.header() == [
        "method (accuracy, %)", "digits 5-shot", "fashion 5-shot", "average 5-shot", "trainable", "cost"
    ]  # fmt: skip
    assert table.rows() == [
        ["ViM", "73.0 ± 3.6", "61.0 ± 1.0", "67.0 ± 2.3", "12.3 k", "1.09 x"],
        ["probe", "68.0 ± 2.0", "50.0", "59.0", "990", "1.00 x"],
        ["alone", "50.0 ± 0.0", "—", "—", "—", "—"],
    ]


def test_markdown_marks_the_best_and_escapes_bars():
    records = [{**record, "method": record["method"].replace("ViM", "V|M")} for record in RECORDS]
    lines = summarise(records).markdown().splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[2].startswith("| V\\|M | **73.0 ± 3.6** | **61.0 ± 1.0** |")
    assert "**" not in lines[3] + lines[4]


def test_less_is_better_where_the_mode_says_so():
    table = summarise(RECORDS, mode="min", percent=False)
    assert table.best(Column("digits", 5)) == "alone"
    assert table.rows()[2][1] == "0.500 ± 0.000"


def test_differences_are_taken_seed_by_seed(table):
    ahead = table.against("ViM")
    assert ahead.methods == ["probe", "alone"]
    digits = Column("digits", 5)
    ours, theirs = table.cells["ViM", digits].seeds, table.cells["probe", digits].seeds
    assert ahead.cells["probe", digits].seeds == {seed: ours[seed] - theirs[seed] for seed in theirs}
    assert ahead.header() == ["method (accuracy, %)", "digits 5-shot", "fashion 5-shot", "average 5-shot"]
    assert [row[1][0] for row in ahead.rows()] == ["+", "+"]
    assert ahead.best(digits) is None
    assert table.against("probe").rows()[0][1].startswith("-")
    with pytest.raises(UnknownNameError, match="unknown method 'Vim'; did you mean 'ViM'"):
        table.against("Vim")


@pytest.mark.parametrize(("width", "titles"), [(120, 1), (50, 2)])
def test_printed_table_is_split_rather_than_cut(table, width, titles):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    table.print("Results", console)
    text = console.export_text()
    assert text.count("Results") == titles
    assert "…" not in text
    assert "73.0 ± 3.6" in text
    assert "12.3 k" in text


def test_results_file_holds_every_seed(table, tmp_path):
    path = table.save(tmp_path / "new" / "results.json")
    stored = json.loads(path.read_text())
    first = stored["results"][0]
    assert (first["method"], first["task"], first["shots"]) == ("ViM", "digits", 5)
    assert first["seeds"] == {"0": 0.70, "1": 0.72, "2": 0.77}
    assert first["mean"] == pytest.approx(0.73)
    single = [r for r in stored["results"] if (r["method"], r["task"]) == ("probe", "fashion")]
    assert single[0]["std"] is None
    assert stored["methods"][0] == {"method": "ViM", "parameters": 12_345, "cost": 1.094}


def test_results_file_is_not_replaced_silently(table, tmp_path):
    path = table.save(tmp_path / "results.json")
    with pytest.raises(ConfigError, match=r"results\.json.*exists.*overwrite=True"):
        table.save(path)
    table.save(path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"value": float("nan")}, "'ViM' on digits 5-shot, seed 0 is nan"),
        ({"seed": 1}, "two results for 'ViM' on digits 5-shot, seed 1"),
    ],
)
def test_bad_records(change, text):
    with pytest.raises(DataError, match=text):
        summarise([{**RECORDS[0], **change}, *RECORDS[1:]])


def test_record_without_a_field():
    with pytest.raises(DataError, match="lacks 'seed'"):
        summarise([{key: value for key, value in RECORDS[0].items() if key != "seed"}])


def test_unknown_metric_names_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        summarise(RECORDS, metric="acuracy")


def test_no_records_make_an_empty_table():
    assert summarise([]).rows() == []
