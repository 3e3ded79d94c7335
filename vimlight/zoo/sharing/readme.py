"""The README of a repository with zoos: metadata that the hub's search finds, and a table of each zoo's modules."""

from __future__ import annotations

import re
from typing import Any

from vimlight.files.text import markdown_text
from vimlight.zoo.sharing.index import Entry, Index

__all__ = ["README", "TAG", "described"]

README = "README.md"
# What the hub's search for zoos looks for.
TAG = "vimlight-zoo"
_TAGS = ("vision-middleware", TAG)
_AS_TAG = re.compile(r"[\w.-]{1,80}")
_EMPTY = "---\nlibrary_name: vimlight\n---\n\n# A zoo of Vision Middleware\n"
# Licences that the hub has a name for which is the SPDX expression in lower case; others are "other" there.
_KNOWN = {
    "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "lgpl-3.0", "mit", "mpl-2.0", "unlicense",
}  # fmt: skip
_COLUMNS = ("module", "licence", "plug-in", "backbone", "task", "data set", "classes")


def described(text: str, folder: str, index: Index, url: str) -> str:
    """Returns a README that describes a zoo; what else it says stays.

    Args:
        text: What it says so far.
        folder: The zoo's folder, whose section is written anew.
        index: The modules.
        url: The zoo's address.
    """
    from huggingface_hub import ModelCard

    card = ModelCard(text if re.match(r"---\s", text) else f"{_EMPTY}{text}", ignore_metadata_errors=True)
    data: Any = card.data
    entries = [entry for _, entry in sorted(index.modules.items())]
    data.tags = sorted({*(data.tags or ()), *_TAGS, *_tags(entries)})
    if data.license is None:
        licences = {entry.card.license.lower() for entry in entries}
        data.license = licences.pop() if len(licences) == 1 and licences <= _KNOWN else "other"
    first, last = f"<!-- {folder}: written by vimlight zoo push -->", f"<!-- {folder}: end -->"
    section = f"{first}\n{_section(entries, url)}\n{last}"
    pattern = rf"{re.escape(first)}.*?{re.escape(last)}"
    body = re.sub(pattern, lambda _: section, card.text, count=1, flags=re.DOTALL)
    card.text = body if first in body else f"{body.rstrip()}\n\n{section}\n"
    return str(card.content)


def _tags(entries: list[Entry]) -> list[str]:
    words = [word for entry in entries for word in (entry.card.kind, entry.card.backbone, entry.card.task)]
    return [word for word in words if _AS_TAG.fullmatch(word)]


def _section(entries: list[Entry], url: str) -> str:
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *(_line(_cells(entry)) for entry in entries)]
    table = "\n".join(lines)
    return f"```bash\nvimlight zoo search {url}\nvimlight zoo pull {url}\n```\n\n{table}"


def _cells(entry: Entry) -> list[str]:
    card = entry.card
    known = [card.license or "none stated", card.kind, card.backbone, card.task, card.dataset]
    return [markdown_text(cell) for cell in (entry.name, *known, str(len(card.classes) or ""))]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
