"""The demo and the tests of two builds, here of the newest commit and this tree: what is compared, and what is said."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from benchmarks.bars import lines
from benchmarks.builds import main
from vimlight.errors import ConfigError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder for what is written; the repository is the current folder."""
    monkeypatch.chdir(Path(__file__).parents[2])
    if subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("needs the history")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_tests_that_both_builds_have_are_timed(here, capsys):
    main(["HEAD", "tests", "--tests", "tests/test_errors.py", "--processes", "0", "--out", str(here)])
    found = json.loads((here / "builds.json").read_text())["tests"]
    assert found["in both"] > 0
    assert not found["lacking"]
    assert all(times["clock"] > 0 < times["processor"] for times in found["rounds"][0].values())
    assert [line.area for line in lines(here)] == ["tests", "tests"]
    printed = capsys.readouterr().out
    assert f"{found['in both']} tests in both; 0 of the other build" in printed
    assert printed.count(f"{found['in both']} passed") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nope"], "no build 'nope'"), (["HEAD", "test"], "'test' is neither demo nor tests")],
)
def test_mistakes(here, arguments, message):
    with pytest.raises(ConfigError, match=message):
        main(arguments)
