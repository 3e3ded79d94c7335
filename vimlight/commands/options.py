"""Parsing of the tools' own options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from vimlight.errors import ConfigError, nearest

__all__ = ["Parser"]

# What argparse says where an option may have been misspelt.
_LACKING = ("the following arguments are required", "unrecognized arguments")


class Parser(argparse.ArgumentParser):
    """A parser that raises mistakes as one line and takes no abbreviations."""

    def __init__(self, prog: str, **options: object) -> None:
        super().__init__(prog, allow_abbrev=False, **options)  # type: ignore[arg-type]  # as argparse takes them
        self._words: list[str] = []

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parses what is known, as argparse does, and notes what was typed."""
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises a mistake.

        Raises:
            ConfigError: Always; the text names an option that does not exist and the nearest one, if there is one.
        """
        if message.startswith(_LACKING):
            self._refuse_unknown(self._words)
        raise ConfigError(f"{message}; see {self.prog} --help")

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """Refuses the first option that neither this parser nor that of the command in the words has."""
        commands: dict[str, Any] = dict(self._subparsers._group_actions[0].choices or {}) if self._subparsers else {}
        chosen = next((commands[word] for word in words if word in commands), None)
        if isinstance(chosen, Parser):
            chosen._refuse_unknown(words)
            return
        known = [option.lstrip("-") for option in self._option_string_actions]
        for option in (word.partition("=")[0] for word in words if word[:2] == "--" and word != "--"):
            if option.lstrip("-") not in known:
                close = nearest(option.lstrip("-"), known, 1)
                hint = f"did you mean '--{close[0]}'?" if close else f"see {self.prog} --help"
                raise ConfigError(f"unknown option {option!r} of {self.prog}; {hint}")
