"""Long lines of a run's log, folded so that they fit a terminal."""

from __future__ import annotations

import logging
import textwrap

__all__ = ["COLUMNS", "Folding"]

COLUMNS = 80
"""How wide lines are: what terminals, logs of batch systems and e-mails have room for."""


class Folding(logging.Formatter):
    """Breaks lines between words, and sets in what follows."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the folded text of a record."""
        return "\n".join(
            textwrap.fill(
                line, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False,
                drop_whitespace=True, replace_whitespace=False,
            )
            for line in super().format(record).split("\n")
        )  # fmt: skip
