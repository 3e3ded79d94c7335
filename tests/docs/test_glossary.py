"""One word for each thing: errors, help, docstrings, pages and comments of configs use those of the glossary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "concepts" / "glossary.md"
# And the one name that is no word.
_CODE = re.compile(r"``?[^`]+``?|Student's")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def rows(text: str) -> list[list[list[str]]]:
    """The tables of a page: of each its rows, and of each of these its cells."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in table.split("\n")[2:] if row]
            for table in tables]  # fmt: skip


def words(cell: str) -> list[str]:
    return [word for part in cell.split(",") if (word := part.strip())]


_FIRST, _SECOND = rows(GLOSSARY.read_text())
INSTEAD = {word: preferred.replace("*", "") for preferred, _, cell in _FIRST for word in words(cell)}
NEVER_IN = {word: words(cell.replace("`", "")) for names, _, cell in _SECOND for word in words(names)}


def plain(text: str) -> str:
    """A text less its code."""
    return _CODE.sub("`", text)


def uses(word: str, text: str) -> bool:
    """Whether a plain text uses a word, or several of it; options, paths and names of arguments are no words."""
    found = re.escape(word).replace(r"\ ", r"\s+")
    return bool(re.search(rf"(?<![\w./@{{'\"-]){found}s?(?![\w/}}=:(-]|\.\w)", text, re.IGNORECASE))


def texts() -> Iterator[tuple[str, str]]:
    """What people read, with where it stands."""
    for file in sorted((ROOT / "vimlight").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"\s", node.value):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node.value
    for file in sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]):
        if file != GLOSSARY:
            lines = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), file.read_text()).split("\n\n")
            yield from ((str(file.relative_to(ROOT)), paragraph) for paragraph in lines)
    for file in sorted(path for folder in ("configs", "vimlight") for path in (ROOT / folder).rglob("*.y*ml")):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            yield f"{file.relative_to(ROOT)}:{number}", line.partition("#")[2]


TEXTS = [(where, plain(text)) for where, text in texts()]


@pytest.mark.parametrize("word", list(INSTEAD))
def test_no_text_has_a_word_that_another_one_stands_for(word):
    places = tuple(f"vimlight/{room}" for room in NEVER_IN.get(word, ())) or ("",)
    found = [where for where, text in TEXTS if where.startswith(places) and uses(word, text)]
    assert found == [], f"the word is {INSTEAD[word]!r}"


@pytest.mark.parametrize("word", list(NEVER_IN))
def test_what_may_stand_for_something_else_does_and_its_rooms_are_there(word):
    assert word in INSTEAD
    assert all((ROOT / "vimlight" / room).is_dir() for room in NEVER_IN[word])
    assert any(uses(word, text) for _, text in TEXTS)


def test_words_are_told_from_code_and_from_parts_of_words():
    for text in ("an expert", "Experts are", "each expert's file", "of\nexperts", "(expert)", "no expert."):
        assert uses("expert", plain(text)), text
    for text in ("`expert`", "expertise", "--expert 3", "experts: Names of", "a/expert.py", "expert=3", "{expert}"):
        assert not uses("expert", plain(text)), text
    assert uses("unseen classes", "of unseen\n    classes")
    assert not uses("student", plain("half of Student's interval"))
