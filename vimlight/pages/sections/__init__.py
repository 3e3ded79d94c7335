"""Sections of a report. A new one is one new file here: a function under `@section(title, place)`, and it is there.

It takes everything that was found and yields the parts that it shows; where it has nothing to show, it yields nothing
and its title does not appear.
"""

from __future__ import annotations

from vimlight.pages.sections.base import SECTIONS, Section, section

__all__ = ["SECTIONS", "Section", "section"]
