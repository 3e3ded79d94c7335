"""Every parser, on files that nobody meant to write: a value, or an error of one or two lines, and nothing else."""

from __future__ import annotations

import copy
import json
import re
import warnings
from pathlib import Path

import pytest
import yaml
from parsers import PARSERS

from vimlight.errors import VimlightError

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402  (needs the package)

LONG = "x" * 5000
CORPUS = Path(__file__).parent / "corpus"
EVERY = pytest.mark.parametrize("name", list(PARSERS))
# Bytes that mean something to one format or another, and numbers at the ends of their types.
PIECES = st.sampled_from(
    [b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b",", b'"', b"'", b"{", b"[", b"}", b"]", b":", b"-", b"nan",
     b"1e999", b"9" * 30, b"9" * 5000, b"\\ud800", b"null", b"&a", b"*a",
     b"2001-99-99", b"<!", b"\xff\xff\xff\x7f", bytes(8)]
)  # fmt: skip
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES | st.binary(max_size=6)), min_size=1, max_size=4)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**30, 10**400, -1, 2**63]) | st.floats()
    | st.text(max_size=8) | st.sampled_from(["", "\ud800", "a/../b", "x" * 400, "\0", "nan"])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def edited(content, edits):
    """Returns the content with some pieces taken out and others put in their place."""
    found = bytearray(content)
    for place, length, piece in edits:
        start = int(place * len(found))
        found[start : start + length] = piece
    return bytes(found)


def places(plain, above=()):
    """Returns where each value of plain lists and dictionaries lies."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [above, *(place for key, value in inner for place in places(value, (*above, key)))]


def changed(plain, place, value, lost):
    """Returns a copy with the value at a place changed, or lost."""
    if not place:
        return value
    found = copy.deepcopy(plain)
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    if lost:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return found


def encoded(parser, plain):
    return (yaml.safe_dump(plain) if parser.file.suffix == ".yaml" else json.dumps(plain)).encode()


def lengthened(parser):
    """Yields the content with a text of 5,000 letters in the place of each text, or key, or of each word."""
    if parser.plain is None:
        for word in re.finditer(rb"[A-Za-z]{3,}", parser.original):
            yield parser.original[: word.start()] + LONG.encode() + parser.original[word.end() :]
        return
    for place in filter(None, places(parser.plain)):
        inner = parser.plain
        for key in place:
            inner = inner[key]
        if isinstance(inner, str):
            yield encoded(parser, changed(parser.plain, place, LONG, lost=False))
        if isinstance(place[-1], str):
            without = changed(parser.plain, place, None, lost=True)
            yield encoded(parser, changed(without, (*place[:-1], LONG), inner, lost=False))


def contents(parser):
    """Strategy for what the parser's file may hold."""
    drawn = st.nothing() if parser.says_alone else EDITS.map(lambda edits: edited(parser.original, edits))
    if parser.plain is None:
        return drawn
    where = st.sampled_from(places(parser.plain))
    values = st.builds(changed, st.just(parser.plain), where, VALUES, st.booleans())
    return drawn | values.map(lambda value: encoded(parser, value))


class Tried:
    """A parser in a folder of its own."""

    def __init__(self, name, root):
        root.mkdir(parents=True)
        self.file, self._read, self.plain, self.says_alone = PARSERS[name](root)
        self.original = self.file.read_bytes()
        self.files = self.bytes = 0

    def read(self, content):
        """Reads other content; whatever is raised but the package's own errors goes on."""
        self.file.write_bytes(content)
        self.files, self.bytes = self.files + 1, self.bytes + len(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._read()
            except VimlightError as error:
                return str(error)
        return None


def short(message):
    return message is None or (len(message.splitlines()) <= 2 and len(message) < 2000)


def fuzz(name, root, examples, seed):
    tried = Tried(name, root)
    common = {"database": None, "deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=examples, **common)
    @hypothesis.given(contents(tried))
    def holds(content):
        assert short(tried.read(content))

    holds()
    return tried


def note(tried, record_property):
    record_property("files fuzzed", tried.files)
    record_property("bytes fuzzed", tried.bytes)


@EVERY
def test_whole_files_are_read(tmp_path, name):
    tried = Tried(name, tmp_path / "whole")
    assert tried.read(tried.original) is None


@pytest.mark.parametrize("file", sorted(CORPUS.rglob("*.*")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_once_failed(tmp_path, file):
    assert short(Tried(file.parent.name, tmp_path / "kept").read(file.read_bytes()))


@EVERY
def test_texts_without_end(tmp_path, name, record_property):
    tried = Tried(name, tmp_path / "long")
    every = list(lengthened(tried))
    for content in every[:: -(-len(every) // 30) or 1]:
        message = tried.read(content)
        assert short(message), message[:300]
    note(tried, record_property)


@EVERY
def test_a_few_changes(tmp_path, name, record_property):
    note(fuzz(name, tmp_path / "few", 8, 0), record_property)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@EVERY
def test_many_changes(tmp_path, name, seed, record_property):
    note(fuzz(name, tmp_path / "many", 150, seed), record_property)


def test_every_kept_input_is_of_a_parser():
    assert {folder.name for folder in CORPUS.iterdir()} <= set(PARSERS)
