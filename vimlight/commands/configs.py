"""`vimlight configs`: which configs come with the package, what they say, and copies of them to change."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from vimlight.commands.options import Parser
from vimlight.commands.output import print_json, print_table
from vimlight.errors import ConfigError, unknown_name
from vimlight.files.atomic import check_writable
from vimlight.shipped import MARK, config_names, configs_folder, resolved

__all__ = ["main"]

_TEXT = """The configs that come with the package. Any of them is used by its name, as in
vimlight fit --config @midstream/letters"""


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight configs`.

    Args:
        arguments: The command line behind `vimlight configs`.

    Raises:
        VimlightError: If there is no such command or config, or a copy would replace a file.
        SystemExit: With 0 behind `--help`.
    """
    parser, commands = _parsers()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        raise unknown_name("command of vimlight configs", arguments[0], commands)
    options = parser.parse_args(arguments)
    options.run(options)


def _parsers() -> tuple[Parser, Iterable[str]]:
    parser = Parser(prog="vimlight configs", description=_TEXT)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=Parser)
    listing = commands.add_parser("list", help="list their names and what they are for")
    show = commands.add_parser("show", help="print one")
    copy = commands.add_parser("copy", help="copy all of them, or those that are named, into a folder")
    listing.add_argument("--json", action="store_true", help="print JSON")
    show.add_argument("name", metavar="NAME", help="such as midstream/letters")
    copy.add_argument("names", metavar="NAME", nargs="*", help="such as midstream/letters (default: all)")
    copy.add_argument("--to", metavar="DIR", default="configs", help="the folder (default: configs)")
    for sub, run in ((listing, _list), (show, _show), (copy, _copy)):
        sub.set_defaults(run=run)
    return parser, commands.choices


def _list(options: argparse.Namespace) -> None:
    rows = {name: _gist(_file(name)) for name in config_names()}
    if options.json:
        print_json([{"name": name, "what": what} for name, what in rows.items()])
    else:
        print_table(("config", "what"), list(rows.items()))


def _show(options: argparse.Namespace) -> None:
    print(_file(options.name).read_text(encoding="utf-8"), end="")


def _copy(options: argparse.Namespace) -> None:
    folder, to = configs_folder(), Path(options.to).expanduser()
    # What is no config of its own, such as a script that runs several, comes along with all of them.
    files = [_file(name) for name in options.names] or [file for file in folder.glob("*/*") if file.is_file()]
    copies = {file: to / file.relative_to(folder) for file in sorted(set(files))}
    check_writable(to)
    for copy in copies.values():
        if copy.exists():
            raise ConfigError(f"{str(copy)!r} exists already; name another folder with --to DIR, or move it away")
    for file, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    configs = sum(file.suffix == ".yaml" for file in copies)
    others = f", and {len(copies) - configs} files that go with them" if configs < len(copies) else ""
    print(f"configs copied to {str(to)!r}: {configs}{others}")


def _file(name: str) -> Path:
    return Path(resolved(MARK + name.removeprefix(MARK)))


def _gist(file: Path) -> str:
    """Returns the first sentence or line of what a config says of itself."""
    with file.open(encoding="utf-8") as stream:
        first = stream.readline().lstrip("# ").rstrip()
    return first.partition(". ")[0].rstrip(".:")
