"""Names that strangers chose are letters in every report: none becomes an element, an attribute or a command."""

from __future__ import annotations

import ast
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from tests.pages.tiny_results import WRITERS
from vimlight.cli import guarded
from vimlight.commands.output import print_table
from vimlight.comparison.results import Compared, _markdown
from vimlight.comparison.standings import standings_of
from vimlight.comparison.tables import Cell, rich_table
from vimlight.comparison.transfers.summary import Summary
from vimlight.errors import DataError
from vimlight.pages import build_report
from vimlight.pages.sources import READERS
from vimlight.progress import _Bar
from vimlight.report.dashboards import Dashboards, Table
from vimlight.report.evaluation import EvaluationTable
from vimlight.report.plots import confusion_matrix, gate_heatmap, png
from vimlight.report.tables import Statistic

PACKAGE = Path(__file__).parents[2] / "vimlight"
STRANGE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "]]><b>", "<!-- x",
    "</title></style><script>", "a|b", "a\\|b", "a\\", "`a`", "`", "[a](javascript:alert(1))", "![a](//host/a.png)",
    "&lt;b&gt;", "&#60;b&#62;", "two\nlines", "# a\n\n- b", "<a@host.org>",
]  # fmt: skip
STEERING = ["\x1b[2Jgone", "\x1b]0;title\x07", "a\rb", "[red]a[/red]", "[/red]", "a\\[b]", "\x9b31m"]


def compared(name):
    """A comparison in which everything that data name has one name."""
    records = [
        {
            "backbone": name, "task": f"{name} {task}", "method": f"{name} {method}", "shots": 5, "seed": seed,
            "metric": name, "mode": "max", "value": 0.1 * task + 0.01 * seed, "parameters": 10, "flops": 1.0,
            "gates": {"values": [[0.5, 0.5]], "places": [name], "names": [name, name]},
        }
        for task in range(2) for method in range(2) for seed in range(2)
    ]  # fmt: skip
    made = Compared(SimpleNamespace(plan=SimpleNamespace(title=name)), records)
    vars(made)["tables"] = standings_of(records, f"{name} 0")
    vars(made)["summaries"] = [Summary(name, ["method", name], [[Cell(name), Cell(name, best=True)]])]
    return made


def evaluation(name):
    cells = {("a", name): Statistic({0: 0.5, 1: 0.6}), ("b", name): Statistic({0: 0.1, 1: 0.2})}
    return EvaluationTable(name, [name], {"a": name, "b": name}, cells, {name: {"a": name}}, [name, name])


def page_of(writer, root, name):
    """A report of results in which a name stands wherever files have one."""
    WRITERS[writer](root, name)
    return build_report([root], name, [name]).render()


def logged(name):
    """What TensorBoard is given."""
    from lightning.pytorch.loggers import TensorBoardLogger

    said = []
    logger = object.__new__(type("Noting", (TensorBoardLogger,), {
        "experiment": SimpleNamespace(add_text=lambda key, text, step: said.append(text)),
    }))  # fmt: skip
    Dashboards([logger], ".").table("val/predictions", Table([name, name], [[name, 1.0], [name, name]]), 0)
    return said[0]


MARKDOWN = {
    "a comparison": lambda name: _markdown(compared(name)),
    "an evaluation": lambda name: evaluation(name).markdown(),
    "a logged table": logged,
}
TERMINAL = {
    "a comparison": lambda name: rich_table(name, [name, name], [[Cell(name), Cell(name, best=True)]]),
    "an evaluation": lambda name: evaluation(name).rich(name, range(1, 3)),
}


class Outline(HTMLParser):
    """The elements with their attributes' names, and the texts between and in them."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, [key for key, _ in attrs]))
        self.texts += [value for key, value in attrs if key in ("alt", "aria-label")]

    def handle_endtag(self, tag):
        self.elements.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        self.elements.append("comment")

    def handle_decl(self, decl):
        self.elements.append(decl)

    unknown_decl = handle_pi = handle_comment


def outline(markdown):
    """The elements of a text in Markdown, and the letters that it shows."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    flat = [each for token in tokens for each in (token, *(token.children or ()))]
    shown = [each.content for each in flat if each.type in ("text", "code_inline", "html_inline", "html_block")]
    kinds = [each.type for each in flat if each.type not in ("text", "text_special")]
    return kinds, "".join(shown)


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("writer", list(READERS))
def test_a_page_has_the_elements_that_it_has_for_plain_names(writer, name, tmp_path):
    # As long as the other: figures cut long names, and show them whole while one points at them.
    names = {"strange": name, "plain": "p" * len(name)}
    found, plain = (Outline(page_of(writer, tmp_path / place, text)) for place, text in names.items())
    assert found.elements == plain.elements
    assert any(name in text for text in found.texts)


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("writer", list(MARKDOWN))
def test_markdown_has_the_elements_that_it_has_for_plain_names(writer, name):
    found, shown = outline(MARKDOWN[writer](name))
    assert found == outline(MARKDOWN[writer]("plain"))[0]
    assert " ".join(name.split()) in shown


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("writer", list(TERMINAL))
def test_nothing_steers_the_terminal(writer, name):
    console = Console(width=200, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(TERMINAL[writer](name))
    written = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert all(char.isprintable() or char == "\n" for char in written)
    letters = "".join(char if char.isprintable() else " " for char in name)
    assert letters.split()[0] in written


@pytest.mark.parametrize("name", STEERING)
def test_messages_and_tables_of_commands_do_not_either(capsys, name):
    with pytest.raises(SystemExit):
        guarded(lambda: (_ for _ in ()).throw(DataError(f"class {name} is bad\nsecond line")))
    print_table(["a"], [[name]])
    said = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in said.out + said.err)
    assert said.err.count("\n") == 2


@pytest.mark.parametrize("name", STEERING)
def test_a_bar_shows_names_as_they_are(name):
    file = io.StringIO()
    bar = _Bar("fits", 2, file)
    bar.start()
    bar.note(name)
    bar.stop()


@pytest.mark.parametrize("name", ["$\\frac$", "_background_ $", "%d {x} \\\n"])
@pytest.mark.parametrize("draw", [
    lambda name: gate_heatmap(np.ones((1, 1)), [name], [name], name),
    lambda name: confusion_matrix(np.eye(2), [name, "b"], name),
])  # fmt: skip
def test_plots_take_names_for_names(name, draw):
    assert png(draw(name), dpi=20).startswith(b"\x89PNG")


@pytest.mark.parametrize(("home", "mark"), [("report/html.py", r"</"),
                                            ("report/tables.py", r"---:")])  # fmt: skip
def test_pages_and_tables_are_written_in_one_place(home, mark):
    """So that the tests above see every report."""
    found = set()
    for path in (path for path in PACKAGE.rglob("*.py") if re.search(mark, path.read_text())):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(mark, node.value):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {home}
