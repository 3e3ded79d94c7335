"""Several processes that train together: where one is gone, the others end, and say which and why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

import lightning.pytorch as pl
from torch import distributed

from vimlight.errors import RankError, VimlightError
from vimlight.masking import masked

__all__ = ["RankWatch", "how_ended", "is_lost_peer", "name_rank", "wait_for_watch"]

_PAUSE = 0.2
_PATIENCE = 5.0
_LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe")


class RankWatch(pl.Callback):
    """Ends this process once another of the run has ended before its time.

    Without it, processes wait for what never comes, or fail somewhere in the midst of it.
    """

    def __init__(self) -> None:
        self._over: threading.Event | None = None
        self._started: list[subprocess.Popen[Any]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Starts to watch: the first process its children, and each of these the first."""
        if trainer.world_size == 1 or (self._over is not None and not self._over.is_set()):
            return
        self._over = threading.Event()
        listed = getattr(trainer.strategy.launcher, "procs", [])
        self._started += listed
        # The trainer's own watch, which kills this process after some seconds, ends where there is nothing to watch.
        listed.clear()
        watch = self._watch_started if self._started else partial(self._watch_parent, os.getppid())
        threading.Thread(target=watch, args=(trainer.global_rank,), daemon=True).start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Watches no longer."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Says which process fails, and watches no longer; where only another one is missed, that one is to be told."""
        if trainer.world_size == 1 or is_lost_peer(exception):
            return
        self._stop()
        if isinstance(exception, Exception) and not isinstance(exception, VimlightError):
            reason = " ".join(str(exception).split())
            _say(f"rank {trainer.global_rank} fails: {type(exception).__name__}: {reason[:300]}")

    def _stop(self) -> None:
        if self._over is not None:
            self._over.set()

    def _watch_started(self, first: int) -> None:
        assert self._over is not None
        while not self._over.wait(_PAUSE):
            codes = [process.poll() for process in self._started]
            lost = next((number for number, code in enumerate(codes) if code), None)
            if lost is not None:
                code = codes[lost] or 0
                _say(f"rank {first + lost + 1} {how_ended(code)}; the other processes of this run end too")
                for process in self._started:
                    process.kill()
                os._exit(code if code > 0 else 128 - code)

    def _watch_parent(self, parent: int, rank: int) -> None:
        assert self._over is not None
        while not self._over.wait(_PAUSE):
            if os.getppid() != parent:
                _say(f"rank {rank} ends: the process that started it is gone")
                os._exit(1)


def how_ended(code: int) -> str:
    """Says how a process ended.

    Args:
        code: Its exit code, or less than 0, the number of the signal that killed it.
    """
    if code >= 0:
        return f"ended with code {code}, for the reason that it gave"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def is_lost_peer(error: BaseException) -> bool:
    """Tells whether an error says no more than that another process does not answer."""
    if isinstance(error, getattr(distributed, "DistError", ())):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def wait_for_watch(error: BaseException) -> RankError:
    """Returns the error of a process that misses another one, unless the watch ends it before with a better one.

    Args:
        error: What it met.
    """
    time.sleep(_PATIENCE)
    return RankError(
        f"another process of this run does not answer; its own words say why ({str(error).split(': ')[-1]})"
    )


def name_rank(error: VimlightError, rank: int) -> None:
    """Puts the rank of its process in front of an error's text."""
    error.args = (f"rank {rank}: {error}", *error.args[1:])


def _say(text: str) -> None:
    print(f"vimlight: {masked(text)}", file=sys.stderr, flush=True)
