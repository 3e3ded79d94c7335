"""How worker processes start: where the system can, from one server that has imported everything they need once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

__all__ = [
    "at_hand",
    "end_with_parent",
    "ending_workers",
    "leave_signals_to_parent",
    "outlast_signals",
    "prepare_workers",
    "stop_on_signals",
    "worker_context",
]

# Elsewhere forked processes may not use what the system's libraries have started.
# As long as Slurm waits before it kills.
_GRACE = 30
_SERVED = sys.platform == "linux"


def worker_context() -> BaseContext:
    """Returns how a pool starts its processes."""
    return multiprocessing.get_context("forkserver" if _SERVED else "spawn")


def at_hand(number: int) -> int:
    """Returns how many of so many worker processes have a core of their own: more would wait for each other.

    Args:
        number: How many were asked for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(number, cores)


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


def leave_signals_to_parent() -> None:
    """Lets this worker take no notice of Ctrl-C, which a terminal sends to all, and end in order when it is told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


def outlast_signals(number: int = 0) -> None:
    """Lets this worker, which reads data, work for as long as the process does that it reads for.

    A terminal and a cluster send their signals to all processes. One that ends at its next step needs data until then.

    Args:
        number: Number of the worker, as loaders call what starts one.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # Where its own loader ends it, which comes to that if it hangs, it has a while.
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Lets Ctrl-C and a request to end, as cluster and shell send it, leave the block like any error.

    In other threads than the main one nothing is changed.

    Raises:
        SystemExit: With code 130 or 143, as is the custom, after such a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    # What is on its way out is not to be stopped in the midst of that.
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextmanager
def ending_workers(patience: float = 2.0) -> Iterator[None]:
    """Ends the worker processes that the block has started, if an error leaves it.

    Args:
        patience: Seconds that they have to end in order.
    """
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        started = [child for child in multiprocessing.active_children() if child not in before]
        for child in started:
            child.terminate()
        deadline = time.monotonic() + patience
        for child in started:
            child.join(max(0.0, deadline - time.monotonic()))
        for child in started:
            if child.is_alive():
                child.kill()
        raise
