"""What tables are made of: statistics, short numbers, and nothing cut off."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

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


@pytest.mark.parametrize("terminal", [True, False])
def test_titles_are_broken_between_words_on_a_terminal_alone(terminal):
    title = "a title that takes more room than the table"
    table = Table("method", "accuracy", title=Text(title), title_justify="left")
    table.add_row("one", "70.0")
    console = Console(width=30, file=io.StringIO(), force_terminal=terminal, color_system=None)
    print_whole(table, console)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert (title in lines) == (not terminal)
    assert title in " ".join(lines)
    assert not terminal or max(map(len, lines)) <= 30
