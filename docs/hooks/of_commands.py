"""The page of the command line, read off the parsers of the commands, without importing torch."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from vimlight.cli import TOOLS, TRAINING
from vimlight.commands.beforehand import DATA, MODELS
from vimlight.commands.options import Parser

__all__ = ["commands_page"]

_TOP = """# Command line

`vimlight COMMAND --help` prints what stands here. Everywhere: `--debug` for the traceback of an error, `--import
MODULE` for plug-ins, aggregators and data sets of your own, `--trusted-modules A,B` for [configs of
strangers](../untrusted.md). Exit codes: 0; 2 after a mistake of the command line or its files; 1 where a check found
something; 130 and 143 after Ctrl-C and SIGTERM.

## Training

```text
vimlight fit|validate|test|predict --config FILE [--config FILE ...] [--KEY VALUE ...]
```

| command | what it does |
| --- | --- |
{training}

They are LightningCLI: a config is a YAML file or the [name of a shipped one](configs.md) with `@` in front; later ones
win over earlier ones, and keys of the command line over all. `--print_config` prints the whole, `--help` all keys.

| key | what |
| --- | --- |
| `--model`, `--model.KEY` | one of {models}; `--model.help NAME` prints what it takes |
| `--data`, `--data.KEY` | one of {data}; `--data.help NAME` prints what it takes |
| `--trainer.KEY` | arguments of Lightning's `Trainer` |
| `--ckpt_path` | the checkpoint to resume, validate, test or predict with |
| `--predictions.path` | where `predict` writes: `.csv`, `.json` or `.parquet` |
| `--seed_everything` | the seed |

"""


def commands_page() -> str:
    """Returns the page in Markdown."""
    found = _TOP.format(
        training="\n".join(f"| `{name}` | {_cell(text)} |" for name, text in TRAINING.items()),
        models=", ".join(f"`{name}`" for name in MODELS),
        data=", ".join(f"`{name}`" for name in DATA),
    )
    return found + "\n".join(part for name in TOOLS for part in _parts(_parser_of(name), 2))


class _CaughtError(Exception):
    """Carries a parser out of the command that made it."""


def _parser_of(command: str) -> argparse.ArgumentParser:
    """Returns the parser of a command, caught as it is about to parse nothing."""
    parse = Parser.parse_known_args

    def caught(self: Parser, *given: Any) -> Any:
        if self.add_help:
            raise _CaughtError(self)
        return parse(self, *given)

    with mock.patch.object(Parser, "parse_known_args", caught):
        try:
            importlib.import_module(f"vimlight.commands.{command}").main([])
        except _CaughtError as error:
            return error.args[0]
    raise LookupError(f"the command {command!r} parses nothing")


def _parts(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
    yield f"{'#' * level} {parser.prog}\n"
    if parser.description:
        yield f"{_sentence(parser.description)}\n"
    yield f"```text\n{parser.format_usage().removeprefix('usage: ').rstrip()}\n```\n"
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    rows = [_row(action) for action in parser._actions if action not in below and "--help" not in action.option_strings]
    if rows:
        yield "\n".join(["| option | what |", "| --- | --- |", *rows]) + "\n"
    for action in below:
        for sub in action.choices.values():
            yield from _parts(sub, level + 1)


def _row(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 and action.option_strings else action.dest)
    names = [f"`{name}`" if action.nargs == 0 else f"`{name} {value}`" for name in action.option_strings]
    text = (action.help or "") % {"default": action.default, "prog": ""} if "%(" in (action.help or "") else action.help
    return f"| {', '.join(names) or f'`{value}`'} | {_cell((text or '').replace('%%', '%'))} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _sentence(text: str) -> str:
    plain = " ".join(text.split())
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith(".") else ".")
