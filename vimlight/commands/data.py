"""`vimlight data`: which data sources there are, what they take, and what is in a data set."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimlight.commands.options import Parser
from vimlight.commands.output import print_json, print_table
from vimlight.errors import unknown_name

if TYPE_CHECKING:
    from vimlight.data.arguments import Argument
    from vimlight.data.overview import Part
    from vimlight.data.source import Source

__all__ = ["main"]

_TEXT = "Show which data sources there are, what they take, and what is in a data set."
_SHEET = "contact_sheet.png"
_LONGEST = 18


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight data`.

    Args:
        arguments: The command line behind `vimlight data`.

    Raises:
        VimlightError: If the command line or the data are not as they should be.
        SystemExit: With 0 behind `--help`.
    """
    parser, commands = _parsers()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        raise unknown_name("command of vimlight data", arguments[0], commands)
    options = parser.parse_args(arguments)
    options.run(options)


def _parsers() -> tuple[Parser, Iterable[str]]:
    parser = Parser(prog="vimlight data", description=_TEXT)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=Parser)
    listing = commands.add_parser("list", help="list the data sources", description="List the data sources.")
    listing.set_defaults(run=_list)
    text = "show what a source takes, and what is in the data set that it opens with these arguments"
    show = commands.add_parser("show", help=text, description=f"{text.capitalize()}.")
    show.set_defaults(run=_show)
    text = "list the data sets of a collection, and what of each is missing on disk"
    members = commands.add_parser("members", help=text, description=f"{text.capitalize()}.")
    members.set_defaults(run=_members)
    for sub in (show, members):
        sub.add_argument("name", metavar="NAME", help="the source")
        sub.add_argument(
            "--args",
            metavar="KEY=VALUE",
            nargs="+",
            default=[],
            help="its arguments; or all as in a config's dataset_args: --args '{root: flowers, ...}'",
        )
    show.add_argument(
        "--sheet", metavar="PNG", default=_SHEET, help=f"where some training images are shown (default: {_SHEET})"
    )
    for sub in (listing, show, members):
        sub.add_argument("--json", action="store_true", help="print JSON")
    return parser, commands.choices


def _list(options: argparse.Namespace) -> None:
    from vimlight.data.arguments import arguments_of, summary_of
    from vimlight.data.sources import list_sources

    rows = {name: (summary_of(name), arguments_of(name)) for name in list_sources()}
    if options.json:
        print_json([_described(name, *row) for name, row in rows.items()])
        return
    print_table(
        ("source", "needs", "what"),
        [
            (name, ", ".join(argument.name for argument in takes if argument.required), what)
            for name, (what, takes) in rows.items()
        ],
    )


def _show(options: argparse.Namespace) -> None:
    from vimlight.data.arguments import arguments_of, parse_arguments, summary_of

    takes = arguments_of(options.name)
    given = parse_arguments(options.args)
    described = _described(options.name, summary_of(options.name), takes)
    if not options.json:
        print(f"{options.name}: {described['what']}\n")
        print_table(
            ("argument", "type", "default", "what"),
            [(each.name, each.type, each.default or "(needed)", each.text) for each in takes],
        )
    if given or not any(argument.required for argument in takes):
        described |= _opened(options.name, given, options)
    elif not options.json:
        needed = " ".join(f"{argument.name}=..." for argument in takes if argument.required)
        print(f"\nwhat is in a data set: vimlight data show {options.name} --args {needed}")
    if options.json:
        print_json(described)


def _members(options: argparse.Namespace) -> None:
    from vimlight.data.arguments import parse_arguments
    from vimlight.data.members import members_of

    found = members_of(options.name, parse_arguments(options.args))
    if options.json:
        print_json([dataclasses.asdict(member) for member in found])
        return
    rows = [(member.name, member.group, member.missing or "-") for member in found]
    print_table(("data set", "group", "missing"), rows)
    there = sum(not member.missing for member in found)
    print(f"\n{there} of the {len(found)} data sets of {options.name} are there")


def _opened(name: str, given: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Opens a data set, prints what is in it unless JSON is asked for, draws its contact sheet, and returns it all."""
    from vimlight.data.overview import parts_of
    from vimlight.data.sources import load_source
    from vimlight.files.atomic import write_whole

    source = load_source(name, given)
    parts = parts_of(source)
    if not options.json:
        _print_parts(source, parts)
    sheet = write_whole(Path(options.sheet).expanduser(), _sheet(source), overwrite=True)
    if not options.json:
        print(f"\ncontact sheet: {sheet}")
    found = {
        part.split: {
            "images": part.images,
            "counts": None if part.counts is None else part.counts.tolist(),
            "counted": part.counted,
            "sizes": _sizes(part),
        }
        for part in parts
    }
    about = {"data set": source.name, "kind": source.kind, "classes": list(source.class_names)}
    return {**about, "parts": found, "sheet": str(sheet)}


def _described(name: str, what: str, takes: Sequence[Argument]) -> dict[str, Any]:
    return {"name": name, "what": what, "arguments": [dataclasses.asdict(each) for each in takes]}


def _print_parts(source: Source, parts: Sequence[Part]) -> None:
    print(f"\n{source.name}: {source.kind}, {len(source.class_names)} {_noun(source)}\n")
    rows = [(part.split, str(part.images), *_sizes(part).values()) for part in parts]
    print_table(("part", "images", "smallest", "median", "largest"), rows)
    print()
    if any(part.counts is None for part in parts):
        print("\n".join(source.class_names))
        return
    partial = [f"{part.counted} of {part.images} of {part.split}" for part in parts if part.counted < part.images]
    if partial:
        print(f"images of each class among {', '.join(partial)}:")
    columns = [part.counts.tolist() for part in parts if part.counts is not None]
    print_table(
        ("class", *(part.split for part in parts)),
        [
            (class_name, *(str(column[number]) for column in columns))
            for number, class_name in enumerate(source.class_names)
        ],
    )


def _noun(source: Source) -> str:
    return "numbers" if source.kind == "regression" else "classes"


def _sizes(part: Part) -> dict[str, str]:
    """Returns width x height of the smallest, the middle and the largest image by area."""
    order = part.sizes.prod(dim=1).argsort(stable=True)
    places = {"smallest": 0, "median": len(order) // 2, "largest": -1}
    found = {key: part.sizes[order[place]].tolist() for key, place in places.items()}
    return {key: f"{width} x {height}" for key, (height, width) in found.items()}


def _sheet(source: Source) -> bytes:
    from vimlight.data.overview import pictures_of
    from vimlight.report.plots import image_grid, png
    from vimlight.tasks import create_task

    pictures = pictures_of(source)
    captions = [_short(picture.text) for picture in pictures]
    shown = {name for picture in pictures for name in picture.text.split("|")}
    colours = create_task(source.kind, source.class_names).colours()
    legend = {name: colour for name, colour in colours.items() if name in shown}
    title = f"{source.name}: {len(source.train)} training images, {len(source.class_names)} {_noun(source)}"
    return png(image_grid([picture.image for picture in pictures], captions, title=title, legend=legend))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
