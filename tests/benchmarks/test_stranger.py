"""The page of the stranger's path: commands as they were typed, what they printed, cut in the middle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.stranger import STEPS, Done, Step, _is_rough, page_of
from vimlight.cli import TOOLS, TRAINING
from vimlight.shipped import config_names

PAGE = Path(__file__).parents[2] / "docs" / "stranger.md"


def test_a_page():
    said = "\n".join(f"line {number}" for number in range(9))
    page = page_of(
        [
            Done(Step("Look", "Why.", "vimlight look", 4), said, 65.2),
            Done(Step("Serve", "", "serve", serves=True), "", 0.0),
        ]
    )
    assert page.startswith("# From an empty environment")
    assert "All of it took 1 min 5 s on " in page
    shown = "## Look\n\nWhy.\n\n```console\n$ vimlight look\nline 0\nline 1\n...\nline 7\nline 8\n```\n\n*1 min 5 s*\n"
    assert shown in page
    assert page.endswith("## Serve\n\n```console\n$ serve &\n```\n")


@pytest.mark.parametrize(("command", "said", "rough"), [
    ("vimlight fit", "a" * 80, False),
    ("vimlight fit", "a" * 81, True),
    ("vimlight zoo list", "a\t" + "b" * 100, False),
    ("vimlight fit", "UserWarning: so", True),
    ("pytest", "1 warning " + "a" * 80, False),
])  # fmt: skip
def test_what_is_rough(command, said, rough):
    assert _is_rough(Done(Step("", "", command), said, 1.0)) == rough


def test_every_command_is_there():
    """What the path types exists; that it works shows where it is walked."""
    for words in (step.command.split() for step in STEPS if step.command.startswith("vimlight")):
        assert words[1] in {**TOOLS, **TRAINING}
        assert all(word[1:] in config_names() for word in words if word.startswith("@"))


def test_the_page_shows_the_path_and_nothing_of_the_machine():
    page = PAGE.read_text()
    commands = re.findall(r"```console\n\$ ((?:.*\\\n)*.*)", page)
    assert [command.removesuffix(" &") for command in commands] == [step.command for step in STEPS]
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|Users)\b", page)
