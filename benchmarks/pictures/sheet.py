"""A sheet to draw on: a file of its own, whose colours follow the reader's light or dark mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vimlight.report.html import Markup, element

__all__ = ["arrow", "box", "path", "sheet", "text"]

_STYLE = Path(__file__).with_suffix(".css")


def sheet(width: int, height: int, label: str, *shapes: Any) -> str:
    """Returns a picture.

    Args:
        width: In pixels.
        height: In pixels.
        label: What it shows, for those who hear it.
        *shapes: What is drawn.
    """
    paper = element("rect", class_="paper", width=width, height=height, rx=10)
    size = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
    style = element("style", Markup(f"\n{_STYLE.read_text()}"))
    namespace = {"xmlns": "http://www.w3.org/2000/svg"}
    return element("svg", element("title", label), style, paper, shapes, role="img", **namespace, **size) + "\n"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Returns a line of text that begins, is centred or ends at a place."""
    return element("text", words, x=x, y=y, class_=kind or None, text_anchor=anchor)


def box(x: float, y: float, width: float, height: float, kind: str = "cold", radius: float = 6) -> Markup:
    """Returns a box with round corners."""
    return element("rect", class_=kind, x=x, y=y, width=width, height=height, rx=radius)


def path(points: str, kind: str = "line") -> Markup:
    """Returns a line through what SVG calls the data of a path."""
    return element("path", class_=kind, d=points)


def arrow(x1: float, y1: float, x2: float, y2: float) -> list[Markup]:
    """Returns an arrow, upright or level."""
    level = y1 == y2
    sign = 1 if (x2 > x1 if level else y2 > y1) else -1
    back, side = 7 * sign, 4
    head = f"M{x2} {y2} l{-back} {-side} v{2 * side} z" if level else f"M{x2} {y2} l{-side} {-back} h{2 * side} z"
    end = (x2 - back, y2) if level else (x2, y2 - back)
    return [path(f"M{x1} {y1} L{end[0]} {end[1]}"), path(head, "head")]
