"""`vimlight zoo`: look into a zoo of modules, check it, move modules in and out, and speak other formats.

What goes to zoos elsewhere and comes from there is in `zoo_sharing`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimlight.commands import zoo_curating, zoo_gallery, zoo_sharing, zoo_trust
from vimlight.commands.beforehand import check_file
from vimlight.commands.options import Parser
from vimlight.commands.output import one_line, print_json, print_table
from vimlight.commands.zoo_listing import HEADINGS, Listed, in_order
from vimlight.commands.zoo_opening import open_zoo
from vimlight.errors import CheckpointError, ConfigError, ZooError, unknown_name

if TYPE_CHECKING:
    from vimlight.interop import Fact
    from vimlight.zoo import Card, Zoo

__all__ = ["main"]

_TEXT = "Look into a zoo of modules, check it, move modules in and out, and share them."
_OPTIONS = ("heads", "backbone", "name", "scale", "bits")


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight zoo`.

    Args:
        arguments: The command line behind `vimlight zoo`.

    Raises:
        VimlightError: If the command line, the zoo or a file in it is not as it should be.
        SystemExit: With 1 if `verify` finds a problem or a removal is not confirmed, with 0 behind `--help`.
    """
    parser, commands = _parsers()
    given, rest = _common(None).parse_known_args(arguments)
    if rest and not rest[0].startswith("-") and rest[0] not in commands:
        raise unknown_name("command of vimlight zoo", rest[0], commands)
    options, beyond = parser.parse_known_args(arguments)
    if beyond and options.command != "rank":
        parser.error(f"unrecognized arguments: {' '.join(beyond)}")
    # A ranking takes what `fit` takes.
    options.beyond, options.given_zoo = beyond, given.zoo
    options.run(options)


def _common(default: str | None) -> Parser:
    """Returns what may stand before and behind the command's name."""
    parser = Parser(prog="vimlight zoo", add_help=False)
    parser.add_argument("--zoo", metavar="DIR", default=default, help="directory of the zoo (default: zoo)")
    return parser


def _parsers() -> tuple[Parser, Iterable[str]]:
    parser = Parser(prog="vimlight zoo", description=_TEXT, parents=[_common("zoo")])
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=Parser)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        # A default here would win over a value given before the command's name.
        common = _common(argparse.SUPPRESS)
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(run=run)
        return sub

    listing = command("list", _list, "list the modules with the gist of their cards")
    ranking = command("rank", _rank, "rank the modules for a task as fit does first, by a config and options of fit")
    command("schema", _schema, "print the JSON schema of cards")
    show = command("show", _show, "show a module's whole card")
    add = command("add", _add, "check a module's file and copy it into the zoo, with its head if there is one")
    remove = command("remove", _remove, "delete a module and its head")
    export = command("export", _export, "check modules and copy them out, with their heads, or write another format")
    reading = command("import", _import, "read another format into a zoo")
    listing.add_argument("--sort", metavar="KEY", default="name", help="name, date, metric, size or any column")
    for sub in (listing, ranking, show):
        sub.add_argument("--json", action="store_true", help="print JSON")
    for sub in (show, remove):
        sub.add_argument("name", metavar="NAME")
    add.add_argument("file", metavar="FILE")
    add.add_argument("--name", help="its name in the zoo (default: the file's)")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    export.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="modules; behind the name of a format those that are written in it (default: all)",
    )
    export.add_argument(
        "--to", metavar="FILE_OR_DIR", required=True, help="a new .safetensors file, a directory, or a format's file"
    )
    export.add_argument(
        "--backbone", metavar="NAME", help="peft: the module's backbone where its name does not say all, as for import"
    )
    reading.add_argument("format", metavar="FORMAT", help="modelscope, peft or petl")
    reading.add_argument("file", metavar="FILE", help="the file or folder")
    reading.add_argument("--out", metavar="DIR", required=True, help="directory of the zoo; modelscope makes a new one")
    reading.add_argument(
        "--heads", metavar="N", type=int, help="modelscope: attention heads, which are not said (default: width / 64)"
    )
    reading.add_argument(
        "--backbone", metavar="NAME", help="peft, petl: the backbone's name, or '{name: ..., img_size: ...}'"
    )
    reading.add_argument("--name", help="peft, petl: the module's name in the zoo (default: the file's)")
    reading.add_argument("--scale", metavar="S", type=float, help="petl: the factor s, which stands in a config")
    reading.add_argument("--bits", metavar="N", type=int, help="petl: bits of an AdaptFormer's weights")
    zoo_curating.add_commands(command)
    zoo_trust.add_commands(command)
    zoo_sharing.add_commands(command)
    zoo_gallery.add_command(command)
    return parser, commands.choices


def _list(options: argparse.Namespace) -> None:
    zoo = open_zoo(options.zoo)
    modules = in_order([Listed(name, _card_or_error(zoo, name), _size(zoo, name)) for name in zoo], options.sort)
    if options.json:
        print_json([_fields(zoo, module.name, module.card) for module in modules])
    elif modules:
        print_table(HEADINGS, [module.cells() for module in modules])
    else:
        print(f"zoo {options.zoo!r} is empty; add a module with: vimlight zoo add FILE --zoo {options.zoo}")


def _show(options: argparse.Namespace) -> None:
    zoo = open_zoo(options.zoo)
    fields = _fields(zoo, options.name, zoo.card(options.name))
    if options.json:
        print_json(fields)
    else:
        stated = [(key, one_line(value)) for key, value in fields.items() if value not in ("", None, [], {}, ())]
        print_table(("field", "value"), stated)


def _rank(options: argparse.Namespace) -> None:
    from vimlight.commands.zoo_rank import rank

    rank(options.beyond, options.given_zoo, options.json)


def _schema(_: argparse.Namespace) -> None:
    from vimlight.zoo.schema import card_schema

    print_json(card_schema())


def _add(options: argparse.Namespace) -> None:
    from vimlight.zoo import Zoo

    name = Zoo(options.zoo).add_file(options.file, options.name)
    print(f"added {name!r} to zoo {options.zoo!r}")


def _remove(options: argparse.Namespace) -> None:
    zoo = open_zoo(options.zoo)
    if options.name in zoo and not options.yes:
        _confirm(f"remove module {options.name!r} from zoo {options.zoo!r} for good?")
    zoo.remove(options.name)
    print(f"removed {options.name!r} from zoo {options.zoo!r}")


def _export(options: argparse.Namespace) -> None:
    from vimlight.interop import FORMATS

    zoo, target, first = open_zoo(options.zoo), Path(options.to), options.names[0]
    if target.suffix in ("", ".safetensors"):
        _check_names(zoo, [name for name in options.names if name not in FORMATS])
    suffixes = {kind.suffix for kind in FORMATS.values() if kind.suffix}
    # A module may be called like a format, but no module goes into a format's file.
    own_file = first in FORMATS and FORMATS[first].suffix and target.suffix == FORMATS[first].suffix
    if own_file or (first not in zoo and (first in FORMATS or target.suffix in suffixes)):
        given = _given(options, FORMATS[first].options("export"), first)
        _print_facts(FORMATS[first]().export_zoo(zoo.path, options.names[1:], target, **given))
        return
    _given(options, [], "a copy")
    for file in zoo.export(options.names, target):
        print(file)


def _check_names(zoo: Zoo, names: Iterable[str]) -> None:
    for name in names:
        zoo.card(name)


def _import(options: argparse.Namespace) -> None:
    from vimlight.interop import FORMATS

    if options.format in FORMATS:
        check_file("file", options.file, CheckpointError)
    kind = FORMATS[options.format]
    given = _given(options, kind.options("import"), options.format)
    _print_facts(kind().import_zoo(Path(options.file).expanduser(), Path(options.out).expanduser(), **given))


def _given(options: argparse.Namespace, known: Sequence[str], format_: str) -> dict[str, Any]:
    """Returns the options of a format that were given; others than its own are a mistake."""
    given = {name: value for name in _OPTIONS if (value := getattr(options, name, None)) is not None}
    foreign = [name for name in given if name not in known]
    if foreign:
        valid = ", ".join(f"--{name}" for name in known) or "none"
        raise ConfigError(f"--{foreign[0]} is no option of {format_}, which takes {valid}")
    return given


def _print_facts(facts: Iterable[Fact]) -> None:
    print_table(("part", "what", "where"), [(fact.part, fact.text, str(fact.file)) for fact in facts])


def _card_or_error(zoo: Zoo, name: str) -> Card | ZooError:
    # One bad file must not hide the others.
    try:
        return zoo.card(name)
    except ZooError as error:
        return error


def _fields(zoo: Zoo, name: str, card: Card | ZooError) -> dict[str, Any]:
    stated = {"error": str(card)} if isinstance(card, ZooError) else dataclasses.asdict(card)
    return {"name": name, "size": _size(zoo, name), **stated}


def _size(zoo: Zoo, name: str) -> int:
    """Returns the bytes of a module's file; 0 of one that was removed meanwhile."""
    try:
        return zoo.file(name).stat().st_size
    except OSError:
        return 0


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked whether to remove it: the input is no terminal; pass --yes")
    from rich.prompt import Confirm

    if not Confirm.ask(question, default=False):
        print("nothing was removed")
        raise SystemExit(1)
