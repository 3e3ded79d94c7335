"""HTML and SVG as nested calls: every text that is not marked as an element already is escaped, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

__all__ = ["Markup", "element", "fragment"]

_VOID = {"meta", "link", "img", "input", "br", "hr", "col"}


class Markup(str):
    """A text that is HTML, and is not escaped once more."""

    __slots__ = ()


Child = str | None | Iterable[Any]


def element(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """Returns an element.

    Args:
        name: Its name, such as `"td"`.
        *children: Texts, which are escaped, elements, and lists of them; nothing for None.
        **attributes: Its attributes; `_` stands for `-`, and one at the end is dropped, as in `class_`. False and None
            leave one out, True gives it without a value; numbers are written with as many digits as a screen shows.
    """
    opened = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    return Markup(opened if name in _VOID else f"{opened}{fragment(children)}</{name}>")


def fragment(*children: Child) -> Markup:
    """Returns texts, which are escaped, and elements one behind the other."""
    return Markup("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    return escape(child) if isinstance(child, str) else "".join(map(_child, child))


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
