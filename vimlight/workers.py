"""How worker processes start: where the system can, from one server that has imported everything they need once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

__all__ = ["end_with_parent", "prepare_workers", "worker_context"]

# Elsewhere forked processes may not use what the system's libraries have started.
_SERVED = sys.platform == "linux"


def worker_context() -> BaseContext:
    """Returns how a pool starts its processes."""
    return multiprocessing.get_context("forkserver" if _SERVED else "spawn")


def prepare_workers(modules: Sequence[str]) -> None:
    """Starts to import what worker processes need, beside what this process does meanwhile.

    Every process that is started later has it from its first moment. It changes nothing that they do.

    Args:
        modules: Names of modules; nothing in them may start threads or take hold of a device when they are imported.
    """
    if _SERVED:
        multiprocessing.set_forkserver_preload(list(modules))
        forkserver.ensure_running()


def end_with_parent() -> None:
    """Lets this worker end once the process that it works for is gone, even if that was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
