"""Registries: names are read off files, entries are imported one by one."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import vimlight
from vimlight.errors import ConfigError, UnknownNameError

ROOT = Path(vimlight.__file__).parent
PLACES = [
    (".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"), name)
    for file in sorted(ROOT.rglob("*.py"))
    for name in re.findall(r"^(\w+): Registry\[", file.read_text(), re.MULTILINE)
]


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """A registry of a package of its own, with two entries in one file, and one in another."""
    folder = tmp_path / "alphabet"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        'from vimlight.registry import Registry\nLETTERS = Registry("letter", "alphabet", "LETTERS")\n'
    )
    (folder / "vowels.py").write_text(
        "from alphabet import LETTERS\n\n\n"
        '@LETTERS.register("a")\ndef a():\n    """An @LETTERS.register("x") in passing."""\n\n\n'
        'LETTERS.register("e")("e")\n'
    )
    (folder / "broken.py").write_text('from alphabet import LETTERS\n1 / 0\nLETTERS.register("z")("z")\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("alphabet").LETTERS
    for name in ("alphabet", "alphabet.vowels", "alphabet.broken"):
        importlib.sys.modules.pop(name, None)


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_the_names_that_are_read_are_those_that_are_registered(module, name):
    registry = getattr(importlib.import_module(module), name)
    assert len(registry) == len(list(registry)) > 0
    package = importlib.import_module(registry._package)
    for each in pkgutil.iter_modules(getattr(package, "__path__", [])):
        importlib.import_module(f"{registry._package}.{each.name}")
    assert sorted(registry._entries) == list(registry)
    assert all(registry[each] is not None for each in registry)


def test_an_entry_imports_its_own_file_alone(letters):
    assert list(letters) == ["a", "e", "z"]
    assert "alphabet.vowels" not in importlib.sys.modules
    assert "e" in letters
    assert "x" not in letters
    assert letters["e"] == "e"
    with pytest.raises(ZeroDivisionError):
        _ = letters["z"]
    with pytest.raises(UnknownNameError, match="unknown letter 'b'; valid: a, e, z"):
        _ = letters["b"]


def test_the_name_of_a_built_in_entry_is_taken_before_it_is_imported(letters):
    with pytest.raises(ConfigError, match="letter 'a' is registered already"):
        letters.register("a")(nothing)
    letters.register("a", replace=True)(nothing)
    assert letters["a"] is nothing
    assert letters.source("a") is None


def nothing():
    """Stands for an entry of a user's own."""


def test_the_text_of_an_entrys_file(letters):
    assert letters.source("a").startswith("from alphabet import LETTERS")
    letters.register("o")("o")
    assert letters.source("o") is None
