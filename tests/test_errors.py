"""How messages show what files hold."""

from __future__ import annotations

import pytest

from vimlight.errors import listed, shown, unknown_name


def nested(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cat", "'cat'"),
        (3, "3"),
        (None, "None"),
        ({"a": [1, 2]}, "{'a': [1, 2]}"),
        (nested(100_000), "[[[[...]]]]"),
        (list(range(99)), "[0, 1, 2, 3, 4, 5, ...]"),
    ],
)
def test_values_are_shown_as_they_are_or_cut(value, text):
    assert shown(value) == text


def test_what_is_long_is_cut():
    assert len(shown("x" * 9999)) == len(shown(b"x" * 9999)) == len(shown(10**4000)) == 80
    assert listed(["cat", "x" * 9999]) == f"cat, {'x' * 80}..."
    assert listed([]) == "none"
    assert listed([str(number) for number in range(30)], 3) == "0, 1, 2, ... (30 in all)"
    assert len(str(unknown_name("class", "x" * 9999, ["y" * 9999, "z"]))) < 300
