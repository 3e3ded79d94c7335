"""The Hugging Face hub, or what of it is on this disk where it cannot be reached."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

__all__ = ["hub_or_disk", "is_missing", "not_there"]

# Seconds for an answer and between two questions: one that is lost does not make a network absent.
_PATIENCE, _PAUSE = 3.0, 1.0


@contextmanager
def hub_or_disk(asked: bool = True) -> Iterator[None]:
    """Lets the hub's client take what is on disk alone, and say at once what is not, where the hub does not answer.

    It would try for the better part of a minute else. Where it answers, or a proxy stands between, nothing is changed.

    Args:
        asked: Whether the hub is asked for anything at all.
    """
    if not asked or constants.HF_HUB_OFFLINE or _answers(0.0) or _answers(_PAUSE):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers(pause: float) -> bool:
    time.sleep(pause)
    address = urlsplit(constants.ENDPOINT)
    if address.scheme in getproxies():
        return True
    found = []

    def connect() -> None:
        port = address.port or (80 if address.scheme == "http" else 443)
        with suppress(OSError), socket.create_connection((address.hostname or "", port), timeout=_PATIENCE):
            found.append(True)

    # To look for a name may take longer than one can say.
    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return bool(found)


def is_missing(error: BaseException | None) -> bool:
    """Tells whether an error says that something of the hub is not on disk, and that the hub was not asked for it."""
    while error is not None and not isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        error = error.__cause__ or error.__context__
    return error is not None


def not_there(what: str, instead: str) -> str:
    """Says what to do about something of the hub that is not on disk.

    Args:
        what: What it is, as messages call it.
        instead: What can be given in place of it.
    """
    host = urlsplit(constants.ENDPOINT).hostname
    return (
        f"{host} is not reached and {what} not on this disk; give {instead}, or bring them in HF_HOME from where there "
        "is a network and set HF_HUB_OFFLINE=1"
    )
