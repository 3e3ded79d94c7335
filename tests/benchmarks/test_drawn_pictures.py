"""The pictures of the README are drawn from the tables of the results, and are current."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from benchmarks.pictures import results
from benchmarks.pictures.__main__ import FOLDER, drawn


@pytest.mark.parametrize("name", drawn())
def test_pictures_are_current_and_follow_dark_mode(name):
    text = (FOLDER / name).read_text()
    assert text == drawn()[name], "python -m benchmarks.pictures draws it anew"
    root = ElementTree.fromstring(text)
    assert root.find("{*}title").text
    assert "prefers-color-scheme: dark" in root.find("{*}style").text
    # Every colour is one that has two values.
    assert not re.findall(r'(?:fill|stroke)="', text)


def test_gains_are_those_of_the_table(monkeypatch, tmp_path):
    page = tmp_path / "cells.md"
    page.write_text(
        "### a, 5-shot\n\n| method | difference to none |\n| --- | ---: |\n| none | — |\n| select | +1.5 ± 0.2 |\n"
    )
    monkeypatch.setattr(results, "_CELLS", page)
    assert results._gains("a", 5) == {"select": (1.5, 0.2)}


def test_a_table_ends_where_the_next_text_begins():
    page = "## One\n\nText.\n\n| **a** | b |\n|---|---|\n| `x` | 1 |\n\n| c |\n|---|\n"
    assert results.table_behind(page, "## One") == [{"a": "x", "b": "1"}]
