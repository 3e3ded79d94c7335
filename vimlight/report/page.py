"""One self-contained HTML page: no file beside it and nothing from the network, which its policy forbids."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from vimlight import __version__
from vimlight.report.files import write_whole
from vimlight.report.html import Markup, element
from vimlight.report.parts import paragraph

__all__ = ["Page", "asset", "digest"]


class Page:
    """A page of sections, which its navigation lists.

    Args:
        title: Title.
        intro: Paragraphs below it.
    """

    def __init__(self, title: str, intro: Sequence[str] = ()) -> None:
        self.title = title
        self._intro = [paragraph(text) for text in intro]
        self._sections: list[tuple[str, Sequence[Markup]]] = []

    def section(self, title: str, parts: Sequence[Markup]) -> None:
        """Adds a section.

        Args:
            title: Its title.
            parts: What it shows; see `vimlight.report.parts`.
        """
        self._sections.append((title, parts))

    def render(self) -> str:
        """Returns the page as HTML."""
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", http_equiv="Content-Security-Policy", content=_policy()),
            element("meta", name="referrer", content="no-referrer"),
            element("meta", name="generator", content=f"vimlight {__version__}"),
            element("title", self.title),
            element("style", Markup(asset("page.css"))),
        )
        body = element("body", self._skip(), self._navigation(), self._main(), _script())
        # Halves of letters, which a config may spell out, cannot be written.
        whole = element("html", head, body, lang="en").encode("utf-8", "replace").decode()
        return f"<!doctype html>\n{whole}\n"

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the page, whole or not at all.

        Args:
            path: Where to write, such as `report.html`.
            overwrite: Whether an existing file is replaced.

        Raises:
            ConfigError: If the file exists and `overwrite` is false.
        """
        return write_whole(path, self.render(), overwrite=overwrite)

    def _skip(self) -> Markup:
        return element("a", "Skip to the content", href="#content", class_="skip")

    def _navigation(self) -> Markup | None:
        if len(self._sections) < 2:
            return None
        links = [element("li", element("a", title, href=f"#{_id(n, title)}")) for n, (title, _) in self._numbered()]
        return element("nav", element("ul", links), aria_label="Sections")

    def _main(self) -> Markup:
        sections = [
            element("section", element("h2", title, id=_id(n, title)), parts, aria_labelledby=_id(n, title))
            for n, (title, parts) in self._numbered()
        ]
        made = element("footer", f"Made by vimlight {__version__}. This page is one file and loads nothing else.")
        return element("main", element("header", element("h1", self.title), self._intro), sections, made, id="content")

    def _numbered(self) -> list[tuple[int, tuple[str, Sequence[Markup]]]]:
        return list(enumerate(self._sections, start=1))


def _id(number: int, title: str) -> str:
    """Returns a name for a link; letters of strangers stay out of it."""
    return f"{number}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}"


def _script() -> Markup:
    return element("script", Markup(asset("page.js")))


@cache
def asset(name: str, package: str = "vimlight.report") -> str:
    """Returns a style sheet or a script.

    Args:
        name: The file.
        package: The package among whose assets it is.
    """
    return files(package).joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def _policy() -> str:
    """Returns what the page may do: its own style and script, pictures in it, and nothing else."""
    style, script = (f"'sha256-{digest(asset(name))}'" for name in ("page.css", "page.js"))
    sources = f"style-src {style}; script-src {script}; img-src data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def digest(text: str) -> str:
    """Returns the hash by which a page's policy knows a style sheet or a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
