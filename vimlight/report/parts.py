"""What pages are made of: paragraphs, tables that sort and filter, figures, and what is folded away."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import NamedTuple

from vimlight.report.html import Markup, element

__all__ = ["Cell", "beside", "chips", "figure", "folded", "grid", "heading", "paragraph", "picture", "table"]

# From so many rows on a table has a field to search it.
_SEARCHABLE = 12
# From so many rows on a table scrolls in a box of its own, and rows out of sight are not laid out.
_LONG = 60
# Not of hashes that happen to begin with digits.
_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")
_SCALES = {"k": 1e3, "M": 1e6, "G": 1e9}
_ALIKE = " ≈"
# What stands where there is no value.
_NOTHING = ("", "—", "n/a")


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: What it says.
        best: Whether it is the best of its column.
        key: What its column is sorted by; the first number in the text if left out.
    """

    text: str
    best: bool = False
    key: float | None = None


def heading(text: str) -> Markup:
    """Returns the heading of a part of a section."""
    return element("h3", text)


def paragraph(text: str, kind: str | None = None) -> Markup:
    """Returns a paragraph.

    Args:
        text: Plain text.
        kind: `"note"` for one that stands back.
    """
    return element("p", text, class_=kind)


def chips(facts: Sequence[tuple[str, str]]) -> Markup:
    """Returns names with their values in one line, as far as it goes."""
    return element("dl", [element("div", element("dt", name), element("dd", text)) for name, text in facts],
                   class_="chips")  # fmt: skip


def grid(*parts: Markup) -> Markup:
    """Returns figures side by side, as many as there is room for."""
    return element("div", parts, class_="grid")


def beside(first: Markup, second: Markup) -> Markup:
    """Returns two parts side by side where there is room, each as wide as it is."""
    return element("div", first, second, class_="beside")


def folded(summary: str, *parts: Markup, is_open: bool = False) -> Markup:
    """Returns parts that are shown when their summary is opened."""
    return element("details", element("summary", summary), parts, open=is_open)


def figure(drawing: Markup, caption: str) -> Markup:
    """Returns a drawing with its caption.

    Args:
        drawing: Such as `vimlight.report.figures` draw.
        caption: What it shows.
    """
    return element("figure", element("div", drawing, class_="scroll", tabindex=0, role="group", aria_label=caption),
                   element("figcaption", caption))  # fmt: skip


def picture(content: bytes, caption: str, *, small: bool = False) -> Markup:
    """Returns a PNG with its caption.

    Args:
        content: What the file holds.
        caption: What it shows; read aloud in its place, too.
        small: Whether it is one of many.
    """
    data = base64.b64encode(content).decode()
    image = element("img", alt=caption, src=f"data:image/png;base64,{data}", loading="lazy")
    return element("figure", image, element("figcaption", caption), class_="picture small" if small else "picture")


def table(header: Sequence[str], rows: Sequence[Sequence[Cell | tuple[str, bool] | str]], caption: str) -> Markup:
    """Returns a table that is sorted by a click on a column's title and, where it is long, searched by a text.

    Columns of numbers stand to the right, others to the left, as the first does, which names the rows.

    Args:
        header: Titles of the columns.
        rows: The cells.
        caption: What it shows.
    """
    cells = [[_cell(one) for one in row] for row in rows]
    numeric = [bool(n) and _is_numeric([row[n].text for row in cells]) for n in range(len(header))]
    titles = [_title(text, left=not right) for text, right in zip(header, numeric, strict=True)]
    body = [
        element("tr", [_drawn(cell, right) for cell, right in zip(row, numeric, strict=True)]) for row in cells
    ]  # fmt: skip
    whole = element(
        "table", element("caption", caption), element("thead", element("tr", titles)), element("tbody", body)
    )
    kind = "scroll long" if len(rows) > _LONG else "scroll"
    box = element("div", whole, class_=kind, tabindex=0, role="group", aria_label=caption)
    return element("div", _search(len(rows)), box, class_="tabular")


def _search(count: int) -> Markup | None:
    if count < _SEARCHABLE:
        return None
    field = element("input", type="search", placeholder="Filter rows", aria_label="Filter rows", autocomplete="off")
    return element("p", field, element("output", f"{count:,} rows"), class_="filter")


def _title(text: str, *, left: bool) -> Markup:
    mark = element("span", class_="arrow", aria_hidden="true")
    # The last word, such as the arrow of what more is better of, does not stand alone.
    whole = "\xa0".join(text.rsplit(" ", 1))
    return element("th", element("button", whole, mark, type="button"), scope="col", class_="left" if left else None)


def _drawn(cell: Cell, numeric: bool) -> Markup:
    kinds = " ".join(["best"] * cell.best + ["left"] * (not numeric))
    best = element("span", " (best)", class_="hidden") if cell.best else None
    # What stands behind a number hangs over, so that numbers are right below each other.
    text, hanging = (cell.text[: -len(_ALIKE)], _ALIKE) if cell.text.endswith(_ALIKE) else (cell.text, "")
    mark = element("span", hanging, class_="hang") if hanging else None
    return element("td", text, mark, best, class_=kinds or None, data_key=_key(cell) if numeric else None)


def _cell(cell: Cell | tuple[str, bool] | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell) if isinstance(cell, str) else Cell(*cell)


def _key(cell: Cell) -> str | None:
    number = cell.key if cell.key is not None else number_in(cell.text)
    return None if number is None else f"{number:.10g}"


def number_in(text: str) -> float | None:
    """Returns the number that a text begins with, such as 1500 of `"1.5 k ± 2"`; nothing if there is none."""
    found = _NUMBER.match(text.strip())
    if found is None:
        return None
    unit = text.strip()[found.end() :].split()
    return float(found[0].replace(",", "")) * _SCALES.get(unit[0] if unit else "", 1.0)


def _is_numeric(texts: Sequence[str]) -> bool:
    said = [text for text in texts if text not in _NOTHING]
    return bool(said) and all(number_in(text) is not None for text in said)
