"""`vimlight new`: a plug-in, an aggregator, a task or a data source of one's own, that works and is tested."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from vimlight.aggregation.registry import AGGREGATORS
from vimlight.commands.options import Parser
from vimlight.commands.own_package import OwnPackage
from vimlight.data.sources import SOURCES
from vimlight.errors import ConfigError, unknown_name
from vimlight.files.atomic import check_writable, publish_directory, temporary_directory, write_whole
from vimlight.files.text import read_text
from vimlight.plugins.registry import PLUGINS
from vimlight.registry import Registry
from vimlight.tasks.registry import TASKS

__all__ = ["KINDS", "Kind", "main"]

_TEXT = """Write a new one of a kind, with its test, into a package of your own, which is made
if it is not there. It works as it stands, to be changed into what you want, and
vimlight knows it by name wherever that package is installed."""
_TEMPLATES = Path(__file__).with_name("skeletons")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Kind:
    """What can be written.

    Attributes:
        registry: The registry that it is entered in.
        what: What it does, in a few words.
        use: A command line that uses it.
    """

    registry: Registry[Any]
    what: str
    use: str


KINDS: Mapping[str, Kind] = {
    "plugin": Kind(
        PLUGINS,
        "a module type: what a module computes at one site",
        "fit --config @midstream/letters --model.plugin $name",
    ),
    "aggregator": Kind(
        AGGREGATORS, "how K modules become one model", "fit --config @downstream/digits --model.aggregator $name"
    ),
    "task": Kind(TASKS, "head, loss, metrics and predictions", "fit --config @midstream/letters --model.task $name"),
    "source": Kind(SOURCES, "a data set: images and their targets", "data show $name"),
}
"""The kinds of `vimlight new`, by name; each has two templates in `skeletons`."""


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight new`.

    Args:
        arguments: The command line behind `vimlight new`.

    Raises:
        UnknownNameError: If there is no such kind.
        ConfigError: If the name cannot be used, or a file would be replaced; nothing is written then.
        SystemExit: With 0 behind `--help`.
    """
    parser = _parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in KINDS:
        raise unknown_name("kind of vimlight new", arguments[0], KINDS)
    options = parser.parse_args(arguments)
    _check_name(KINDS[options.kind].registry, options.name)
    directory = Path(options.to or f"vimlight-{options.name.replace('_', '-')}").expanduser()
    _write(options.kind, options.name, OwnPackage.at(directory))


def _parser() -> Parser:
    parser = Parser(prog="vimlight new", description=_TEXT)
    kinds = parser.add_subparsers(metavar="KIND", required=True, dest="kind", parser_class=Parser)
    for name, kind in KINDS.items():
        sub = kinds.add_parser(name, help=kind.what, description=f"Write {kind.what}, and its test.")
        sub.add_argument("name", metavar="NAME", help="what configs call it, such as my_own")
        text = "directory of the package, with its pyproject.toml (default: vimlight-NAME)"
        sub.add_argument("--to", metavar="DIR", help=text)
    return parser


def _check_name(registry: Registry[Any], name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        like = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()
        hint = f", such as {like!r}" if _NAME.fullmatch(like) and not keyword.iskeyword(like) else ""
        raise ConfigError(f"{name!r} is no name in lower-case letters, digits and underscores{hint}")
    if name in registry:
        others = (f"my_{name}", *(f"{name}_{number}" for number in range(2, 100)))
        free = next(other for other in others if other not in registry and not other.startswith("my_my_"))
        raise ConfigError(f"{registry.kind} {name!r} is registered already; choose another name, such as {free!r}")


def _write(kind: str, name: str, package: OwnPackage) -> None:
    """Writes what is new in a package, all of it or, where a file would be replaced, nothing."""
    module = f"{package.name}.{name}"
    words = {
        "name": name,
        "Class": "".join(part.title() for part in name.split("_")),
        "package": package.name,
        "distribution": package.directory.absolute().name,
    }
    files = {
        package.code / f"{name}.py": _filled(f"{kind}.py", words),
        package.directory / "tests" / f"test_{name}.py": _filled(f"test_{kind}.py", words),
    }
    if package.is_new:
        files[package.code / "__init__.py"] = _filled("__init__.py", words)
        files[package.code / "py.typed"] = ""
        files[package.directory / "README.md"] = _filled("README.md", words)
    for file, text in files.items():
        check_writable(file.parent)
        # What a run that was killed has written is as it should be.
        if file.exists() and not (file.is_file() and read_text(file, ConfigError) == text):
            raise ConfigError(f"{str(file)!r} exists already; choose another name, or another package with --to DIR")
    before = _filled("pyproject.toml", words) if package.is_new else None
    project = package.announcing(KINDS[kind].registry.group, name, module, before)
    # Last, since it says that the others are there.
    files[package.project] = project
    _publish(files, package.directory)
    _say(list(files), package, Template(KINDS[kind].use).substitute(words))


def _publish(files: Mapping[Path, str], directory: Path) -> None:
    """Writes files of a directory, which appears whole if it is new."""
    if directory.exists():
        for file, text in files.items():
            write_whole(file, text, overwrite=True)
        return
    try:
        with temporary_directory(directory) as copy:
            for file, text in files.items():
                write_whole(copy / file.relative_to(directory), text)
            publish_directory(copy, directory, overwrite=False)
    except OSError as error:
        raise ConfigError(f"{str(directory)!r} cannot be written: {error.strerror or error}") from error


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(words)


def _say(files: Sequence[Path], package: OwnPackage, use: str) -> None:
    # What runs the tests comes along with a package that was written here; another one has it as its owner likes.
    what = f"'{package.directory}[dev]'" if package.is_new else package.directory
    print("\n".join(f"wrote {file}" for file in files))
    print(f"\nnext: pip install -e {what}\n      pytest {package.directory}\n      vimlight {use}")
