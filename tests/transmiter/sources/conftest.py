"""Caches of drawn shapes by the embedded weak model, built once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# Where the tiny models of open_clip are written.
sys.path.insert(0, str(Path(__file__).parents[1] / "cache"))

from tiny_tuning import build


@pytest.fixture(scope="session")
def shapes_once(tmp_path_factory):
    return build(tmp_path_factory.mktemp("shapes") / "weak")


@pytest.fixture
def shapes(shapes_once, tmp_path, monkeypatch):
    """A directory to work in, with the caches `caches/weak/train`, `val` and `test`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shapes_once, tmp_path / "caches" / "weak")
    return Path("caches/weak")
