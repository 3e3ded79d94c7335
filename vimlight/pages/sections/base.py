"""What a section is, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vimlight.pages.sources import Found
from vimlight.registry import Registry
from vimlight.report.html import Markup

__all__ = ["SECTIONS", "Section", "section"]

Build = Callable[[Found], Iterable[Markup]]


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        title: Its title.
        place: Where it stands; small numbers come first.
        build: Yields what it shows.
    """

    title: str
    place: int
    build: Build


SECTIONS: Registry[Section] = Registry("section", "vimlight.pages.sections")


def section(title: str, place: int) -> Callable[[Build], Build]:
    """Returns a decorator that enters a function as a section under its name.

    Args:
        title: Title of the section.
        place: Where it stands; small numbers come first.
    """

    def enter(build: Build) -> Build:
        SECTIONS.register(build.__name__)(Section(title, place, build))
        return build

    return enter
