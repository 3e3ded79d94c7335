"""A number of minutes for several pieces of work, each of which is ended when its share is used up."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Budget", "Limit"]


class Limit:
    """What became of a piece of work.

    Attributes:
        cut: Whether it was ended.
    """

    cut = False


class _OutOfTimeError(BaseException):
    """Ends a piece of work; nothing that catches errors is to take it for one."""


class Budget:
    """Deals out time: what one piece of work leaves over, those behind it share.

    Args:
        seconds: How long all of it may take.
        pieces: How many pieces there are.
    """

    def __init__(self, seconds: float, pieces: int) -> None:
        self._end = time.monotonic() + seconds
        self._pieces = pieces

    @property
    def share(self) -> float:
        """Seconds of the next piece."""
        return max(0.0, self._end - time.monotonic()) / max(1, self._pieces)

    @contextmanager
    def limit(self) -> Iterator[Limit]:
        """Ends the block when its share is used up; only the main thread, on systems with alarms, can do that."""
        limit, share = Limit(), self.share
        self._pieces -= 1
        if math.isinf(share):
            yield limit
            return

        def ring(number: int, frame: object) -> None:
            raise _OutOfTimeError

        before = signal.signal(signal.SIGALRM, ring)
        # A timer of zero seconds would be none.
        # Raised while an object is deleted it would be lost, so that it rings again.
        signal.setitimer(signal.ITIMER_REAL, max(share, 0.001), 5.0)
        try:
            yield limit
        except _OutOfTimeError:
            limit.cut = True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
