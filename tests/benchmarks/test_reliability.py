"""What is promised of faults, and what the page says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.reliability import FILE, PROMISES, found_in, main, page

TESTS = Path(__file__).parents[1]
RUN = """<testsuites><testsuite>
<testcase classname="tests.faults.test_kills" name="test_writers_survive_kills_within_files[a]">
<properties><property name="kills within files" value="1200"/></properties></testcase>
<testcase classname="tests.faults.test_kills" name="test_writers_survive_kills_within_files[b]">
<properties><property name="kills within files" value="34"/></properties></testcase>
<testcase classname="tests.faults.test_full_disk" name="test_a_disk_of_2_mb[a]"><skipped/></testcase>
{more}</testsuite></testsuites>"""


def test_every_test_that_is_named_exists():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", FILE.read_text())
    assert len(named) == sum(len(promise.tests) for promise in PROMISES)
    for file, function in named:
        assert f"def {function}(" in (TESTS / file).read_text(), function


def test_the_page_has_every_promise():
    rows = FILE.read_text().splitlines()
    assert [promise.text for promise in PROMISES] == [
        row.split(" | ")[0].removeprefix("| ") for row in rows if row.startswith("| ") and "::" in row
    ]


def test_what_tests_counted_is_summed(tmp_path):
    (tmp_path / "run.xml").write_text(RUN.format(more=""))
    text = page(found_in([tmp_path / "run.xml"]))
    assert "| 1,234 kills within files, 2 cases |" in text
    assert text.count("| not in this run |") == len(PROMISES) - 1


def test_nothing_is_written_of_a_run_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.reliability.FILE", tmp_path / "page.md")
    failed = '<testcase classname="tests.faults.test_races" name="test_x"><failure/></testcase>'
    (tmp_path / "run.xml").write_text(RUN.format(more=failed))
    with pytest.raises(SystemExit, match=r"1 tests failed: faults/test_races\.py::test_x"):
        main([str(tmp_path / "run.xml")])
    assert not (tmp_path / "page.md").exists()
    (tmp_path / "run.xml").write_text(RUN.format(more=""))
    main([str(tmp_path / "run.xml")])
    assert (tmp_path / "page.md").read_text() == page(found_in([tmp_path / "run.xml"]))
