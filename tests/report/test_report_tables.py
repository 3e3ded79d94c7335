"""What tables are made of: statistics, short numbers, and nothing cut off."""

from __future__ import annotations

import math

import pytest
from rich.console import Console
from rich.table import Table

from vimlight.report.tables import Statistic, count_text, multiple_text, print_whole


def test_mean_and_sample_deviation():
    cell = Statistic({0: 0.70, 1: 0.72, 2: 0.77})
    assert cell.mean == pytest.approx(0.73)
    assert cell.std == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert math.isnan(Statistic({0: 0.5}).std)


@pytest.mark.parametrize(("number", "text"), [(970, "970"), (9_999, "9,999"), (12_345, "12.3 k"), (3_200_000, "3.2 M")])
def test_numbers_of_parameters_are_short(number, text):
    assert count_text(number) == text


def test_costs_are_multiples():
    assert multiple_text(1.094) == "1.09 x"


def test_nothing_is_cut_off_on_a_narrow_terminal():
    table = Table("method", "accuracy")
    table.add_row("a method of a long name", "70.0 \u00b1 2.0")
    console = Console(width=12, record=True)
    print_whole(table, console)
    assert "a method of a long name" in console.export_text()
