"""`vimlight zoo push`, `pull`, `search` and `sync`: modules that people share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vimlight.commands.output import print_json, print_table
from vimlight.commands.zoo_listing import judged
from vimlight.errors import ConfigError, ZooError
from vimlight.files.text import is_file

if TYPE_CHECKING:
    from vimlight.zoo import Card
    from vimlight.zoo.sharing import Entry

__all__ = ["add_commands"]

_URL = "a directory, or an address such as hf://OWNER/NAME, s3://BUCKET/ZOO, https://HOST/ZOO (read-only)"
_HUB = ("hf://", "hub:")
_UNSTATED = "(none stated)"


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands.

    Args:
        command: Adds a command by its name, what runs it and what it does; returns its parser.
    """
    push = command("push", _push, "check modules and put them into a zoo elsewhere")
    pull = command("pull", _pull, "bring modules from a zoo elsewhere, checked; goes on with what was interrupted")
    search = command("search", _search, "look for modules in a zoo elsewhere, or for zoos on the hub (hf://)")
    sync = command("sync", _sync, "pull from a zoo elsewhere what is missing here, and push what is missing there")
    for sub in (push, search, sync):
        sub.add_argument("url", metavar="URL", help=_URL)
    pull.add_argument("url", metavar="URL", nargs="?", help=f"{_URL}; with --locked where that says, if left out")
    pull.add_argument("--locked", metavar="FILE", help="bring exactly the modules of a run, as its zoo.lock says")
    for sub, what in ((push, "there"), (pull, "here")):
        sub.add_argument("names", metavar="NAME", nargs="*", help="modules (default: all)")
        sub.add_argument("--overwrite", action="store_true", help=f"replace modules of another content {what}")
    for sub in (pull, sync):
        sub.add_argument(
            "--require-signature", metavar="FILE", help="bring only what one of these allowed signers signed"
        )
    search.add_argument("words", metavar="WORD", nargs="*", help="what name or card contain (default: all modules)")
    search.add_argument("--json", action="store_true", help="print JSON")


def _push(options: argparse.Namespace) -> None:
    from vimlight.zoo import Zoo
    from vimlight.zoo.sharing import open_place, push

    if is_file(Path(options.url).expanduser()):
        raise ConfigError(
            f"{options.url!r} is a file: push takes the zoo that modules go to, {_URL}, and behind it their names"
        )
    zoo, place = Zoo(options.zoo), open_place(options.url)
    pushed = push(zoo, place, options.names, options.overwrite)
    _print_cards((name, zoo.card(name)) for name in pushed)
    print(f"modules pushed to {place.url}: {len(pushed)}")


def _pull(options: argparse.Namespace) -> None:
    if options.locked is not None:
        _pull_locked(options)
        return
    if options.url is None:
        raise ConfigError("vimlight zoo pull needs the URL of a zoo, or --locked with the zoo.lock of a run")
    from vimlight.zoo import Zoo
    from vimlight.zoo.sharing import keep_signatures, missing_here, open_place, pull

    zoo, place = Zoo(options.zoo), open_place(options.url)
    chosen = place.index().chosen(options.names, place.url)
    missing = missing_here(zoo, chosen, options.overwrite)
    _require_signatures(chosen, place.url, options)
    # Under which licence they are is said before they are there.
    _print_cards((entry.name, entry.card) for entry in missing)
    pull(zoo, place, missing, options.overwrite)
    keep_signatures(zoo, chosen)
    print(f"modules pulled into zoo {options.zoo!r}: {len(missing)}")


def _pull_locked(options: argparse.Namespace) -> None:
    from vimlight.zoo import Zoo
    from vimlight.zoo.sharing import not_here, open_place, pull, read_lock

    if options.names:
        raise ConfigError("--locked says which modules are pulled: leave the names out")
    zoo, found = Zoo(options.zoo), []
    for pin in not_here(zoo, read_lock(Path(options.locked).expanduser()), options.overwrite):
        source = options.url or pin.source
        if not source:
            raise ZooError(f"{options.locked} does not say where {pin.name!r} is to be had; name the URL of a zoo")
        place = open_place(source)
        found.append((place, pin.entry_in(place)))
    for place, entry in found:
        _require_signatures([entry], place.url, options)
    _print_cards((entry.name, entry.card) for _, entry in found)
    for place, entry in found:
        pull(zoo, place, [entry], options.overwrite)
    print(f"modules pulled into zoo {options.zoo!r}, as {options.locked} says: {len(found)}")


def _sync(options: argparse.Namespace) -> None:
    from vimlight.zoo import Zoo
    from vimlight.zoo.sharing import keep_signatures, missing_here, open_place, pull, push

    zoo, place = Zoo(options.zoo), open_place(options.url)
    there = place.index_or_empty().modules.values()
    missing = missing_here(zoo, there)
    _require_signatures(there, place.url, options)
    _print_cards((entry.name, entry.card) for entry in missing)
    pull(zoo, place, missing)
    keep_signatures(zoo, there)
    pushed = push(zoo, place) if place.writable else []
    print(f"modules pulled into zoo {options.zoo!r}: {len(missing)}, pushed to {place.url}: {len(pushed)}")


def _require_signatures(entries: Iterable[Entry], where: str, options: argparse.Namespace) -> None:
    """Says who signed modules, before they are fetched, and refuses what nobody did whom one may trust.

    Raises:
        ZooError: If one is not signed, or not by an allowed signer. What comes then is what its card and hashes say.
    """
    if options.require_signature is None:
        return
    from vimlight.zoo.signing import check_signers, signer_of

    allowed = Path(options.require_signature).expanduser()
    check_signers(allowed)
    for entry in entries:
        if not entry.signature:
            raise ZooError(f"module {entry.name!r} of {where} is not signed")
        try:
            print(f"{entry.name}: signed by {signer_of(entry.card, entry.signature, allowed)}")
        except ZooError as error:
            raise ZooError(f"module {entry.name!r} of {where}: {error}") from error


def _search(options: argparse.Namespace) -> None:
    from vimlight.zoo.sharing import matching, open_place

    if options.url in _HUB:
        _search_hub(options)
        return
    place = open_place(options.url)
    found = matching(place.index(), options.words)
    if options.json:
        print_json([_fields(entry) for entry in found])
    elif found:
        _print_cards((entry.name, entry.card) for entry in found)
    else:
        print(f"no module of {place.url} has {' and '.join(map(repr, options.words)) or 'a name'}")


def _search_hub(options: argparse.Namespace) -> None:
    from vimlight.zoo.sharing import find_repositories

    columns, found = ("zoo", "licence", "tags"), find_repositories(options.words)
    if options.json:
        print_json([dict(zip(columns, row, strict=True)) for row in found])
    elif found:
        print_table(columns, found)
    else:
        print(f"no zoo of the hub has {' and '.join(map(repr, options.words)) or 'a name'}")


def _print_cards(cards: Iterable[tuple[str, Card]]) -> None:
    rows = [
        (name, card.license or _UNSTATED, card.kind, card.backbone, card.task, card.dataset, judged(card))
        for name, card in cards
    ]
    if rows:
        print_table(("module", "licence", "plug-in", "backbone", "task", "data set", "main metric"), rows)


def _fields(entry: Entry) -> dict[str, object]:
    return {"name": entry.name, "size": entry.size, "file_sha256": entry.sha256, **vars(entry.card)}
