"""Figures: well-formed whatever they are given, with every name and number where it belongs."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from vimlight.report import figures
from vimlight.report.figures import Bin, Change, Group, Interval, Spot
from vimlight.report.figures.canvas import Scale, number_text, ticks
from vimlight.report.figures.scatter import front

NAME = '<&"'
FIGURES = {
    "lines": lambda name, v: figures.lines({name: [(0, v), (1, 2 * v), (2, math.nan)], "b": [(0, v)]}, name, name),
    "heat_map": lambda name, v: figures.heat_map([name], [Group(name, [name, "b"], [[v, -v]])], name),
    "intervals": lambda name, v: figures.intervals([Interval(name, [v, 2 * v], True), Interval("b", [])], name, name),
    "scatter": lambda name, v: figures.scatter([Spot(name, v, v), Spot("b", 2 * v, v, True)], name, name),
    "reliability": lambda name, v: figures.reliability({name: [Bin(3, 0.5, 0.25), Bin(0, 0.0, 0.0)]}, name),
    "changes": lambda name, v: figures.changes([Change(name, v, 2 * v), Change("b", v, v)], name, name),
}  # fmt: skip


def test_every_figure_is_here():
    assert set(FIGURES) == {name for name in figures.__all__ if name.islower()}


@pytest.mark.parametrize("value", [1.0, 0.0, -3.5, 1e-12, 1e-300, 5e-324, 1e18])
@pytest.mark.parametrize("name", list(FIGURES))
def test_figures_are_well_formed_and_hold_finite_numbers(name, value):
    drawn = FIGURES[name](NAME, value)
    root = ElementTree.fromstring(drawn)
    assert NAME in "".join(root.itertext())
    places = [each.get(key, "0") for each in root.iter() for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy")]
    assert all(math.isfinite(float(text)) for text in places)
    assert not re.search(r"\b(nan|inf)\b", drawn)
    assert root.get("role") == "img"


def test_series_differ_in_more_than_colour():
    drawn = figures.lines({str(n): [(0, n), (1, n)] for n in range(10)}, "x", "y")
    kinds = re.findall(r'<polyline class="line ([^"]*)"', drawn)
    assert len(set(kinds)) == 10


def test_long_curves_keep_their_peaks():
    points = [(n, 1.0) for n in range(50_000)]
    points[12_345] = (12_345, 9.0)
    drawn = figures.lines({"loss": points}, "step", "loss")
    heights = [pair.split(",")[1] for pair in re.search(r'points="([^"]*)"', drawn)[1].split()]
    assert len(heights) < 1300
    assert heights.count(min(heights, key=float)) == 1


def test_heat_maps_show_sign_and_size_and_leave_gaps():
    drawn = figures.heat_map(["row"], [Group("", ["a", "b", "c"], [[1.0, -0.5, math.nan]])], "x")
    assert re.findall(r'class="cell (\w+)"[^>]*fill-opacity="([\d.]+)"', drawn) == [("pos", "1"), ("neg", "0.53")]


@pytest.mark.parametrize("name", ["W", "MAMMOTH", "wombat", "象"])
def test_rows_of_a_heat_map_have_room_for_their_names(name):
    drawn = figures.heat_map([name], [Group("", ["a"], [[1.0]])], "x")
    # Type of 12 pixels, of which the widest letters take an em and small ones half of it.
    needed = sum(6 if letter.islower() else 11.4 for letter in name)
    assert float(re.search(rf'<text x="([\d.]+)"[^>]*>{name}<', drawn)[1]) >= needed


def test_the_front_is_what_nothing_beats_for_less():
    spots = [Spot("cheap", 1, 5), Spot("beaten", 2, 4), Spot("dear", 3, 9), Spot("twin", 1, 4)]
    assert [spot.name for spot in front(spots)] == ["cheap", "dear"]


def test_names_of_a_scatter_do_not_stand_on_each_other():
    drawn = figures.scatter([Spot(f"method {n}", 1.0, 50.0 + n / 100) for n in range(6)], "cost", "score")
    lines = [float(y) for y, name in re.findall(r'<text x="[^"]*" y="([^"]*)"[^>]*>(method \d)', drawn)]
    assert len(lines) == 6
    assert min(b - a for a, b in zip(sorted(lines), sorted(lines)[1:], strict=False)) >= 14


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 7, [-2, 0, 2, 4, 6]), (0.001, 0.0012, 5)]
)
def test_ticks_are_round(low, high, expected):
    found = ticks(Scale(low, high, 0, 100))
    assert found == pytest.approx(expected) if isinstance(expected, list) else 4 <= len(found) <= 6


def test_ticks_of_a_logarithmic_scale_are_powers_of_ten():
    scale = Scale.over([0.5, 2000], 0, 100, log=True)
    assert ticks(scale) == [1, 10, 100, 1000]
    assert scale(0.5) < 10 < 90 < scale(2000)
    assert not Scale.over([0, 10], 0, 1, log=True).log


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1e-5, "1.0e-5"), (12345, "12,345"), (3e9, "3.0e9")]
)
def test_numbers_are_short(value, text):
    assert number_text(value) == text
