"""How far a long piece of work is: a bar on a terminal, and lines elsewhere, such as in the log of a batch job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Protocol, TextIO, TypeVar

__all__ = ["Lines", "Progress", "track"]

T = TypeVar("T")
_SILENCE = 30.0
# Columns of a bar, those that counts and times take beside it, and those of a whole line.
_BAR, _COUNTS, _COLUMNS = 12, 36, 80


class _View(Protocol):
    def start(self) -> None: ...

    def advance(self, job: str | None) -> None: ...

    def within(self, steps: float) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Progress:
    """Shows how many steps are done, within a `with` statement.

    Args:
        text: What is worked on.
        total: Number of steps, if it is known.
        file: Where it is shown: by default on the standard error, so that results can be piped.
    """

    def __init__(self, text: str, total: int | None, file: TextIO | None = None) -> None:
        file = sys.stderr if file is None else file
        self._view: _View = _Bar(text, total, file) if file.isatty() else Lines(text, total, file)

    def __enter__(self) -> Progress:
        """Starts to show."""
        self._view.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops to show."""
        self._view.stop()

    def advance(self, job: str | None = None) -> None:
        """Counts a step.

        Args:
            job: Its name, if it deserves a line of its own where there is no terminal.
        """
        self._view.advance(job)

    def within(self, steps: float) -> None:
        """Tells how much is done of the steps that are under way.

        Args:
            steps: The sum of their shares.
        """
        self._view.within(steps)

    def note(self, text: str) -> None:
        """Says more about where the work is, from the next line on."""
        self._view.note(text)


class _Bar:
    """A bar, which vanishes once everything is done."""

    def __init__(self, text: str, total: int | None, file: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        times = TimeElapsedColumn(), TimeRemainingColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(_BAR), MofNCompleteColumn(), *times)
        console = Console(file=file)
        # A line that does not fit becomes several, which flicker.
        self._room = max(console.width - _BAR - _COUNTS, _BAR)
        self._text = text
        self._bar = Bar(*columns, console=console, transient=True)
        self._task = self._bar.add_task(text, total=total)
        self._done, self._part = 0, 0.0

    def start(self) -> None:
        self._bar.start()

    def advance(self, job: str | None) -> None:
        self._done += 1
        self.within(self._part)
        if job is not None:
            self.note(f"{job} done")

    def within(self, steps: float) -> None:
        self._part = steps
        self._bar.update(self._task, completed=self._done + steps)

    def note(self, text: str) -> None:
        self._bar.update(self._task, description=_cut(f"{self._text}: {text}", self._room))

    def stop(self) -> None:
        self._bar.stop()


class Lines:
    """A line for every step that has a name, and never a longer silence than half a minute.

    Args:
        text: What is worked on.
        total: Number of steps, if it is known.
        file: Where the lines go.
        clock: Tells the time in seconds.
    """

    def __init__(self, text: str, total: int | None, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._text, self._total, self._file, self._clock = text, total, file, clock
        self._start = self._said = clock()
        self._done, self._part, self._note = 0, 0.0, ""
        self._lock, self._over = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Starts the clock, and a thread that breaks the silence while a step takes long."""
        self._start = self._said = self._clock()
        threading.Thread(target=self._watch, daemon=True).start()

    def advance(self, job: str | None) -> None:
        """Counts a step; see `Progress.advance`."""
        with self._lock:
            self._done += 1
            if job is not None:
                self._note = job
                self._say()
        self.remind()

    def within(self, steps: float) -> None:
        """Counts what is done of the steps under way; see `Progress.within`."""
        self._part = steps

    def note(self, text: str) -> None:
        """Says more in the next line."""
        self._note = text

    def remind(self) -> None:
        """Prints a line if there was none for half a minute."""
        with self._lock:
            if not self._over.is_set() and self._clock() - self._said >= _SILENCE:
                self._say()

    def stop(self) -> None:
        """Stops the thread; nothing is printed any more."""
        with self._lock:
            self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_SILENCE - (self._clock() - self._said)):
            self.remind()

    def _say(self) -> None:
        self._said = self._clock()
        took, total = self._said - self._start, self._total
        count = f"{self._done} done" if total is None else f"{self._done} of {total} done"
        start, end = f"{self._text}: {count}", f", {_duration(took)}"
        done = self._done + self._part
        if total is not None and 0 < done < total:
            end += f", about {_duration(took / done * (total - done))} left"
        note = _cut(self._note, max(_COLUMNS - len(f"{start} (){end}"), _BAR))
        print(f"{start}{f' ({note})' if note else ''}{end}", file=self._file, flush=True)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def track(
    items: Iterable[T], text: str, show: bool = True, total: int | None = None, file: TextIO | None = None
) -> Iterator[T]:
    """Yields the items and shows how many are done.

    Args:
        items: What is worked on.
        text: What that is called.
        show: Whether to show anything.
        total: Number of items where they cannot be counted.
        file: See `Progress`.
    """
    if not show:
        yield from items
        return
    count = total if total is not None else len(items) if isinstance(items, Sized) else None
    with Progress(text, count, file) as progress:
        for item in items:
            yield item
            progress.advance()
