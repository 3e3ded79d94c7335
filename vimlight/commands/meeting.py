"""Before processes on several machines train together, each says whether it can: nobody waits for one that cannot."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from os import environ
from typing import TYPE_CHECKING

from vimlight.errors import RankError, VimlightError
from vimlight.masking import masked

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # it lists no names

__all__ = ["Meeting"]

_PAUSE = 0.1
# A machine may import its libraries for long; one that did not start never comes.
_PATIENCE = 1800.0
# Who fails keeps the others' store for as long as they may need to read why.
_LINGER = timedelta(seconds=60)
_READY = "ready"
_HINT = "machines that share no folder need the same zoo, data and checkpoint each"
_NUMBERS = itertools.count()


class Meeting:
    """Where the processes that `torchrun` started for a command meet before their work.

    They meet in the store that it keeps for them, so that a process that fails before the processes are joined, such as
    for a file that its machine lacks, tells the others, which would wait for it. Elsewhere there is no such store, and
    nothing happens.
    """

    def __init__(self) -> None:
        together = int(environ.get("WORLD_SIZE", "1")) > 1
        self._open = together and environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        # A command may be the second of its processes, and these may have been started again.
        self._name = f"vimlight/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_NUMBERS)}"

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tells the others of an error in the block, unless they have met before it."""
        try:
            yield
        except Exception as error:
            if self._open:
                self._tell(error)
            raise

    def join(self) -> None:
        """Waits until all processes are ready.

        Raises:
            RankError: If another one has failed, or does not come.
        """
        if not self._open:
            return
        self._open = False
        with _answering():
            store = self._store()
            store.set(_said(self._rank), _READY)
            others = [rank for rank in range(self._world) if rank != self._rank]
            came = _wait(lambda: store.check([_said(rank) for rank in others]) or self._failed(store), _PATIENCE)
            failed = self._failed(store)
            store.set(_read(self._rank), _READY)
        if failed is not None:
            raise RankError(f"another process cannot begin: {failed}; {_HINT}")
        if not came:
            raise RankError(f"not all of the {self._world} processes came within {_PATIENCE / 60:.0f} minutes")

    def _tell(self, error: Exception) -> None:
        self._open = False
        name = f"rank {self._rank}: "
        if isinstance(error, VimlightError) and not str(error).startswith(name):
            error.args = (f"{name}{error}", *error.args[1:])
        text = str(error) if isinstance(error, VimlightError) else f"{name}{type(error).__name__}: {error}"
        try:
            with _answering():
                store = self._store()
                store.set(_said(self._rank), masked(text))
                store.set(_read(self._rank), _READY)
                _wait(lambda: store.check([_read(rank) for rank in range(self._world)]), _LINGER.total_seconds())
        except RankError:
            # There is nobody to tell.
            return

    def _failed(self, store: Store) -> str | None:
        """Returns what the first process that failed said, if one has."""
        came = [rank for rank in range(self._world) if store.check([_said(rank)])]
        texts = (store.get(_said(rank)).decode() for rank in came)
        return next((text for text in texts if text != _READY), None)

    def _store(self) -> Store:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # it lists no names

        host, port = environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
        return PrefixStore(self._name, TCPStore(host, port, is_master=False, timeout=_LINGER))

    @property
    def _rank(self) -> int:
        return int(environ["RANK"])

    @property
    def _world(self) -> int:
        return int(environ["WORLD_SIZE"])


def _said(rank: int) -> str:
    return f"said/{rank}"


def _read(rank: int) -> str:
    return f"read/{rank}"


def _wait(until: Callable[[], object], seconds: float) -> bool:
    """Waits in small steps, so that signals are heeded; tells whether what was waited for has come."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True


@contextmanager
def _answering() -> Iterator[None]:
    """Says in a line that the machine with the store is gone.

    Raises:
        RankError: If it is.
    """
    try:
        yield
    except RuntimeError as error:
        raise RankError(f"the first machine of this run does not answer; its own words say why ({error})") from error
