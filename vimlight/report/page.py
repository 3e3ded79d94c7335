"""One self-contained HTML page: text, tables and figures, no file beside it and nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vimlight.report.files import write_whole
from vimlight.report.plots import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --faint: #5d6670; --paper: #fdfdfc;
  --rule: #d9dde1; --best: #e6f0f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --faint: #9aa4ae; --paper: #16191d; --rule: #343a41; --best: #1d3444; }
}
body { max-width: 72rem; margin: 2.5rem auto; padding: 0 1.25rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 44rem; }
.scroll { overflow-x: auto; margin: 1.25rem 0 .4rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
th { font-weight: 600; color: var(--faint); border-bottom-width: 2px; vertical-align: bottom; white-space: normal; }
td.best { font-weight: 600; background: var(--best); }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); border-radius: 6px;
  padding: .5rem; box-sizing: border-box; }
.caption, figcaption { color: var(--faint); font-size: .88rem; max-width: 44rem; margin: .4rem 0 0; }
"""


class Page:
    """A page that is filled from top to bottom.

    Args:
        title: Title.
        intro: Paragraphs below it.
    """

    def __init__(self, title: str, intro: Sequence[str] = ()) -> None:
        self.title = title
        self._parts: list[str] = []
        for text in intro:
            self.paragraph(text)

    def heading(self, text: str) -> None:
        """Adds a heading.

        Args:
            text: Plain text.
        """
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Adds a paragraph.

        Args:
            text: Plain text.
        """
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
        """Adds a table.

        Args:
            header: Titles of the columns.
            rows: Texts of the cells.
            caption: What it shows.
        """
        self._add_table(header, [[(text, False) for text in row] for row in rows], caption)

    def marked(self, header: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]], caption: str = "") -> None:
        """Adds a table of which some cells are marked.

        Args:
            header: Titles of the columns.
            rows: Texts of the cells, and whether they are marked.
            caption: What it shows.
        """
        self._add_table(header, rows, caption)

    def figure(self, figure: Figure, caption: str) -> None:
        """Adds a figure as an inline PNG.

        Args:
            figure: The figure.
            caption: What it shows; read aloud in the image's place, too.
        """
        data = base64.b64encode(png(figure)).decode()
        width = round(figure.get_figwidth() * 96) + 18
        image = f'<img width="{width}" alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        self._parts.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")

    def render(self) -> str:
        """Returns the page as HTML."""
        title = escape(self.title)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
            + "\n".join(self._parts)
            + "\n</body>\n</html>\n"
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the page, whole or not at all.

        Args:
            path: Where to write, such as `report.html`.
            overwrite: Whether an existing file is replaced.

        Raises:
            ConfigError: If the file exists and `overwrite` is false.
        """
        return write_whole(path, self.render(), overwrite=overwrite)

    def _add_table(self, header: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]], caption: str) -> None:
        head = "".join(f'<th scope="col">{_unbroken(text)}</th>' for text in header)
        body = "\n".join(
            "<tr>" + "".join(f"<td{' class=best' * best}>{escape(text)}</td>" for text, best in row) + "</tr>"
            for row in rows
        )
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
        if caption:
            self._parts.append(f'<p class="caption">{escape(caption)}</p>')


def _unbroken(text: str) -> str:
    return escape(text).replace("-", "&#8209;")
