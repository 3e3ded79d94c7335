"""A path that is there, but not what it should be, is never the nearest name to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from vimlight.comparison.reading import read_plan
from vimlight.data import load_source
from vimlight.errors import VimlightError
from vimlight.files.absent import absence
from vimlight.files.weight_file import read_weights
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.tables import read_array


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with files and directories whose names are alike."""
    monkeypatch.chdir(tmp_path)
    for name in ("names", "names.txt", ".namesake"):
        Path(name).touch()
    for name in ("folders", "folder.txt", ".folder"):
        Path(name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("name.txt", {}, "does not exist; did you mean 'names.txt'?"),
        ("zzz", {}, "does not exist"),
        ("folder", {"folder": True}, "does not exist; did you mean 'folders'?"),
        ("nowhere/names.txt", {}, "does not exist"),
        ("names.txt", {"folder": True}, "is a file, not a directory"),
        ("folders", {}, "is a directory, not a file"),
        ("n" * 5000, {}, "does not exist"),
        ("n" * 5000, {"folder": True}, "does not exist"),
        ("names.tx", {"pattern": "*.yaml"}, "does not exist"),
    ],
)
def test_what_is_there_instead(place, name, options, text):
    assert absence(Path(name), **options) == text


DIRECTORIES = {
    "plan": lambda path: read_plan(path),
    "table": lambda path: load_source("manifest", {"path": path}),
    "weights": lambda path: read_weights(Path(path)),
    "array": lambda path: read_array(path),
}


@pytest.mark.parametrize("what", list(DIRECTORIES))
def test_a_directory_is_no_file(place, what):
    with pytest.raises(VimlightError, match=r"folder.txt'? is a directory, not a file"):
        DIRECTORIES[what]("folder.txt")


def test_a_file_is_no_directory(place):
    with pytest.raises(VimlightError, match=r"'names' is a file, not a directory"):
        LogitCache.open("names")
