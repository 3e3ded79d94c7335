"""Modules on their way: to a zoo elsewhere, from there, or both."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vimlight.errors import ZooError, listed
from vimlight.files.leftovers import sweep
from vimlight.files.partial import Partial, partial, sweep_partials
from vimlight.progress import Progress
from vimlight.zoo.card import FORMAT_VERSION, Card
from vimlight.zoo.files import beside, pack_module, read_head
from vimlight.zoo.sharing.index import Entry, Index
from vimlight.zoo.sharing.lock import remember
from vimlight.zoo.sharing.places import Place, explained
from vimlight.zoo.signing import keep_signature, signature_of
from vimlight.zoo.zoo import Zoo, checked_module

__all__ = ["keep_signatures", "matching", "missing_here", "missing_there", "pull", "push"]


def missing_there(zoo: Zoo, index: Index, names: Iterable[str], where: str, overwrite: bool = False) -> list[str]:
    """Returns which modules of a zoo a place lacks.

    Args:
        zoo: The zoo.
        index: What lies there.
        names: The modules asked for.
        where: What the place is called.
        overwrite: Whether those of another content there count as missing.

    Raises:
        ZooError: If one exists there with another content, and `overwrite` is false.
    """
    cards = {name: zoo.card(name) for name in names}
    other = [name for name, card in cards.items() if name in index.modules and not index.modules[name].is_same(card)]
    if other and not overwrite:
        raise ZooError(f"{where} has other modules of these names: {listed(other)}; replace them with --overwrite")
    return [name for name in cards if name in other or name not in index.modules]


def missing_here(zoo: Zoo, entries: Iterable[Entry], overwrite: bool = False) -> list[Entry]:
    """Returns which modules of a place a zoo lacks.

    Args:
        zoo: The zoo.
        entries: The modules asked for.
        overwrite: Whether those of another content here count as missing.

    Raises:
        ZooError: If one exists here with another content, or damaged, and `overwrite` is false.
    """
    asked = list(entries)
    other = [entry.name for entry in asked if entry.name in zoo and not _has(zoo, entry)]
    if other and not overwrite:
        raise ZooError(
            f"zoo {str(zoo.path)!r} has other modules of these names: {listed(other)}; replace them with --overwrite"
        )
    return [entry for entry in asked if entry.name in other or entry.name not in zoo]


def push(zoo: Zoo, place: Place, names: Sequence[str] = (), overwrite: bool = False) -> list[str]:
    """Puts modules of a zoo elsewhere after checking them, and what they are into its index.

    The zoo remembers that they are to be had there, for the locks of its users.

    Args:
        zoo: The zoo.
        place: Where they go.
        names: Which; all that are not there if left out.
        overwrite: Whether modules of the same name and another content are replaced there.

    Returns:
        Names of those that were not there.

    Raises:
        ZooError: If the place is read-only or cannot be written, a module is damaged, or one of another content is
            there; nothing is written then.
    """
    if not place.writable:
        raise ZooError(f"{place.url} is read-only: push to where its files lie")
    if not zoo.path.is_dir():
        raise ZooError(f"zoo {str(zoo.path)!r} does not exist")
    asked = names or zoo.names()
    with place.alone():
        index = place.index_or_empty()
        missing = missing_there(zoo, index, asked, place.url, overwrite)
        files: dict[str, Path | bytes] = {}
        entries = dict(index.modules)
        for name in missing:
            card, content = _packed(zoo, name)
            entries[name] = Entry(name, len(content), hashlib.sha256(content).hexdigest(), card)
            # What is a file stays one, so that memory does not grow with the zoo.
            files[entries[name].file] = content if beside(zoo.file(name)).exists() else zoo.file(name)
        signed = _newly_signed(zoo, asked, entries, overwrite)
        if files or signed:
            entries |= signed
            with explained(place.url, "written"):
                place.put(files, Index(entries))
    remember(zoo, place, asked)
    return missing


def pull(zoo: Zoo, place: Place, entries: Sequence[Entry], overwrite: bool = False) -> None:
    """Brings modules from elsewhere into a zoo, each checked before it is there.

    What was fetched of a module before the process was killed, or the connection lost, is not fetched again. The zoo
    remembers where it came from, for the locks of its users.

    Args:
        zoo: The zoo.
        place: Where they come from.
        entries: Which of the place's index.
        overwrite: Whether modules of the same names are replaced.

    Raises:
        ZooError: If a module cannot be read, is not what the index says, or there is no room for it; those before it
            are there then.
    """
    if zoo.path.is_dir():
        # What those left who were killed between two names of a file.
        sweep(zoo.path)
        sweep_partials(zoo.path)
    if not entries:
        return
    try:
        zoo.path.mkdir(parents=True, exist_ok=True)
        with Progress(f"pulling from {place.url}", len(entries)) as progress:
            for entry in entries:
                _fetch(zoo, place, entry, overwrite, progress)
                remember(zoo, place, [entry.name])
                progress.advance(entry.name)
    except OSError as error:
        raise ZooError(f"nothing can be written to zoo {str(zoo.path)!r}: {error.strerror}") from error


def keep_signatures(zoo: Zoo, entries: Iterable[Entry]) -> None:
    """Keeps the signatures of modules that are here, where they have none.

    Args:
        zoo: The zoo.
        entries: What a place says of them.
    """
    for entry in entries:
        if entry.signature and entry.name in zoo and _has(zoo, entry) and signature_of(zoo, entry.name) is None:
            keep_signature(zoo, entry.name, entry.signature)


def _newly_signed(zoo: Zoo, names: Iterable[str], entries: Mapping[str, Entry], overwrite: bool) -> dict[str, Entry]:
    """Returns what an index is to say of modules that have a signature here and none there, or another to overwrite."""
    signatures = {name: signature_of(zoo, name) for name in names}
    return {
        name: replace(entries[name], signature=signature)
        for name, signature in signatures.items()
        if signature and signature != entries[name].signature and (overwrite or not entries[name].signature)
    }


def matching(index: Index, words: Sequence[str]) -> list[Entry]:
    """Returns the modules whose name or card has all of some words, in any case.

    Args:
        index: What lies elsewhere.
        words: The words; all modules where there are none.
    """
    wanted = [word.casefold() for word in words]
    return [entry for _, entry in sorted(index.modules.items()) if all(word in _text(entry) for word in wanted)]


def _text(entry: Entry) -> str:
    card = entry.card
    parts = [entry.name, card.kind, card.backbone, card.task, card.dataset, *card.classes]
    return "\n".join([*parts, card.license, card.author, card.text]).casefold()


def _has(zoo: Zoo, entry: Entry) -> bool:
    try:
        return entry.is_same(zoo.card(entry.name))
    except ZooError:
        # A damaged one is another one.
        return False


def _packed(zoo: Zoo, name: str) -> tuple[Card, bytes]:
    """Returns a module's card and the content of its file, checked; a pair of files of earlier versions is made one."""
    file = zoo.file(name)
    card, tensors = checked_module(file)
    head = read_head(file)
    if not beside(file).exists():
        return card, file.read_bytes()
    card = replace(card, format_version=FORMAT_VERSION)
    return card, pack_module(card, tensors, head)


def _fetch(zoo: Zoo, place: Place, entry: Entry, overwrite: bool, progress: Progress) -> None:
    with partial(zoo.file(entry.name), entry.sha256) as copy:
        if entry.name in zoo and _has(zoo, entry):
            # Another process pulled it, while this one waited.
            copy.discard()
            return
        _check_room(zoo, entry, copy)
        for piece in _missing_pieces(place, entry, copy.size):
            copy.append(piece)
            progress.within(min(1.0, copy.size / entry.size))
        progress.within(0)
        _check_whole(place, entry, copy)
        try:
            zoo.take(copy.path, entry.name, overwrite)
            keep_signatures(zoo, [entry])
        finally:
            copy.discard()


def _missing_pieces(place: Place, entry: Entry, start: int) -> Iterator[bytes]:
    """Yields what is missing of a file, and of one that goes on behind its end one byte more."""
    room = entry.size + 1 - start
    with explained(f"module {entry.name!r} of {place.url}", "fetched"):
        pieces = place.pieces(entry.file, start) if room > 1 else iter(())
        for piece in pieces:
            yield piece[:room]
            room -= len(piece)
            if room <= 0:
                return


def _check_room(zoo: Zoo, entry: Entry, copy: Partial) -> None:
    free = shutil.disk_usage(zoo.path).free
    if entry.size - copy.size > free:
        raise ZooError(
            f"module {entry.name!r} is said to have {entry.size} bytes, for which there is no room on the disk of zoo "
            f"{str(zoo.path)!r} ({free} are free)"
        )


def _check_whole(place: Place, entry: Entry, copy: Partial) -> None:
    """Checks a file that has come: its length, its hash, and all that `Zoo.verify` looks at."""
    what = f"module {entry.name!r} of {place.url}"
    if copy.size < entry.size:
        raise ZooError(f"{what} ended after {copy.size} of {entry.size} bytes; the same command goes on from there")
    try:
        if copy.finish() != entry.sha256:
            raise ZooError(
                f"{what} is not what its index says (its SHA-256 differs): it is damaged, or was being replaced; pull "
                "again, or tell whoever keeps it"
            )
        card, _ = checked_module(copy.path)
        read_head(copy.path)
        if not entry.is_same(card):
            raise ZooError(f"{what} has another card than its index says; tell whoever keeps it")
    except ZooError as error:
        copy.discard()
        raise ZooError(str(error).replace(copy.path.name, f"{place.url}: {entry.file}")) from error
