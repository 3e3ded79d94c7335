"""Reads beside another build, here the newest commit: it runs to its end, of every kind of file; times are kept."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from benchmarks.bars import lines
from benchmarks.before import main
from vimlight.errors import ConfigError


@pytest.mark.slow
def test_reads_beside_another_build(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    if subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("needs the history")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    main(["HEAD", "--rounds", "1", "--scale", "1", "--out", str(tmp_path)])
    kinds = ["module", "logit cache, 256 rows", "logit cache, 4,096 rows", "checkpoint", "prefix epoch"]
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in kinds)
    content = json.loads((tmp_path / "before.json").read_text())
    assert all(seconds > 0 for build in content["rounds"][0].values() for seconds in build.values())
    assert len(lines(tmp_path)) == len(kinds)
    trees = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in trees


def test_a_build_that_is_not_there(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(ConfigError, match="no build 'nope'"):
        main(["nope"])
