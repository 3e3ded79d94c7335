"""The README as a package index shows it: without pictures and links that lead into the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

__all__ = ["Readme", "standalone"]

_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https:)[^)]*\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https:)[^)]*\)")


def standalone(text: str) -> str:
    """Returns a text in Markdown in which pictures are their descriptions, and links their words.

    Args:
        text: The text; what leads to an address of the web stays.
    """
    return _LINK.sub(r"\1", _PICTURE.sub(r"*\1*", text))


class Readme(MetadataHookInterface):
    """Gives a distribution its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the README to the metadata.

        Args:
            metadata: The metadata of the project.
        """
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": standalone(text)}
