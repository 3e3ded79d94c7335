"""Parsing of the tools' own options."""

from __future__ import annotations

import argparse
from typing import NoReturn

from vimlight.errors import ConfigError

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """A parser that raises mistakes as one line and takes no abbreviations."""

    def __init__(self, prog: str, **options: object) -> None:
        super().__init__(prog, allow_abbrev=False, **options)  # type: ignore[arg-type]  # as argparse takes them

    def error(self, message: str) -> NoReturn:
        """Raises a mistake.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help")
