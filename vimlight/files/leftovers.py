"""Hidden names of what is being written, which say who writes it, and what becomes of them when that one is killed."""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path

__all__ = ["TEMPORARY", "hidden", "recover", "set_aside", "sweep"]

TEMPORARY, _OLD = ".tmp", ".old"
_NAME = re.compile(r"\..+\.(?P<host>[\w-]+)-(?P<pid>\d+)-[0-9a-f]{32}\.(?P<what>tmp|old)")
# Of processes on other machines nobody can ask; nothing takes longer to write.
_PATIENCE = 7 * 24 * 3600


def hidden(final: Path, what: str = TEMPORARY) -> Path:
    """Returns a hidden name beside the final one, which no other writer has.

    Args:
        final: The name that a file or directory shall get, or has.
        what: How the name ends.
    """
    return final.with_name(f".{final.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex}{what}")


def set_aside(final: Path) -> Path:
    """Moves a directory to a hidden name, from which `recover` takes it back; returns that.

    Args:
        final: The directory.
    """
    old = hidden(final, _OLD)
    final.rename(old)
    return old


def sweep(directory: Path) -> None:
    """Removes what was being written in a directory by processes that are gone.

    Args:
        directory: The directory; what lies deeper is left alone.
    """
    for path in directory.glob(".*"):
        found = _NAME.fullmatch(path.name)
        if found is None or not _is_orphan(path):
            continue
        if found["what"] == "old":
            recover(path.with_name(path.name.rsplit(".", 2)[0][1:]))
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def recover(final: Path) -> None:
    """Gives a directory its name back, if whoever was replacing it was killed meanwhile; waits for one who is at it.

    Args:
        final: Its name.
    """
    if final.exists():
        return
    for old in final.parent.glob(f".{glob.escape(final.name)}.*{_OLD}"):
        if _is_orphan(old):
            with suppress(OSError):
                old.rename(final)
        else:
            _await(final)
        return


def _await(final: Path) -> None:
    """Waits until a directory has its name, which whoever replaces it gives it at once."""
    for _ in range(25):
        if final.exists():
            return
        time.sleep(0.01)


def _is_orphan(path: Path) -> bool:
    """Tells whether the process that made a hidden name is gone."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return False
    if found["host"] == _host():
        return not _is_alive(int(found["pid"]))
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _PATIENCE
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It is another user's.
        return True
    return True


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname()) or "here"
