"""Work in processes that are killed at a change of the file system, or in the middle of a file, and what they said."""

from __future__ import annotations

import functools
import mmap
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vimlight.errors import VimlightError

_ROOM = 1 << 16
# What Python reports of changes, besides files that are opened for writing.
_CHANGES = {
    "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.utime",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Outcome(NamedTuple):
    """How a child ended.

    Attributes:
        changes: How many changes of the file system it made, or was about to make.
        killed: Whether it was killed.
        error: The message of a `VimlightError`, or the traceback of anything else; empty if all went well.
        typed: Whether that was a `VimlightError`.
    """

    changes: int
    killed: bool
    error: str
    typed: bool


def in_child(
    work: Callable[[], object], *, kill_at: int = 0, kill_after: float = 0.0, largest: int = 0, kill: bool = True
) -> Outcome:
    """Does work in a fork of this process, which has everything imported.

    Args:
        work: The work.
        kill_at: Before which change of the file system it is killed, counted from 1; none if 0.
        kill_after: After how many seconds it is killed; never if 0.
        largest: Bytes beyond which no file may grow; no limit if 0.
        kill: Whether it is killed there, in the middle of the file; else writing fails, as on a full disk.
    """
    said = mmap.mmap(-1, _ROOM)

    def watched():
        _watch(said, kill_at)
        if largest:
            _limit(largest, kill)
        work()

    child = _forked(watched, said)
    if kill_after:
        time.sleep(kill_after)
        # Not waited for yet, so nobody else has its number.
        os.kill(child, signal.SIGKILL)
    return _outcome(child, said)


def together(works: Sequence[Callable[[], object]]) -> list[Outcome]:
    """Does several works at the same time, each in a fork of this process; returns how each ended."""
    gate, opened = os.pipe()
    notes = [mmap.mmap(-1, _ROOM) for _ in works]

    def waiting(work):
        os.close(opened)
        # Ends when the last of those who could write has closed its end.
        os.read(gate, 1)
        work()

    children = [_forked(functools.partial(waiting, work), said) for work, said in zip(works, notes, strict=True)]
    os.close(opened)
    found = [_outcome(child, said) for child, said in zip(children, notes, strict=True)]
    os.close(gate)
    return found


def _forked(work: Callable[[], object], said: mmap.mmap) -> int:
    child = os.fork()
    if child:
        return child
    try:
        _quiet()
        # What is imported late would be compiled to files, which are no changes of the writer's.
        sys.dont_write_bytecode = True
        work()
    except VimlightError as error:
        _say(said, b"t", str(error))
    except BaseException:
        _say(said, b"x", traceback.format_exc())
    finally:
        os._exit(0)


def _outcome(child: int, said: mmap.mmap) -> Outcome:
    _, status = os.waitpid(child, 0)
    length = int.from_bytes(said[8:12], "little")
    text = said[13 : 13 + length].decode()
    return Outcome(int.from_bytes(said[:8], "little"), os.WIFSIGNALED(status), text, said[12:13] == b"t")


def _quiet() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(silence, descriptor)


def _say(said: mmap.mmap, kind: bytes, text: str) -> None:
    content = text.encode()[: _ROOM - 13]
    said[8:12], said[12:13], said[13 : 13 + len(content)] = len(content).to_bytes(4, "little"), kind, content


def _watch(said: mmap.mmap, kill_at: int) -> None:
    """Counts the changes of the file system, and kills this process before one of them."""

    def count() -> None:
        changes = int.from_bytes(said[:8], "little") + 1
        said[:8] = changes.to_bytes(8, "little")
        if changes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def seen(event: str, arguments: tuple) -> None:
        if event in _CHANGES or (event == "open" and not isinstance(arguments[0], int) and arguments[2] & _WRITING):
            count()

    sync = os.fsync

    def synced(descriptor: int) -> None:
        # Python reports nothing of it; between what is written and what is on the disk is a moment too.
        count()
        sync(descriptor)

    os.fsync = synced
    sys.addaudithook(seen)


def _limit(largest: int, kill: bool) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
