"""The measuring itself: tasks in turn, ratios round by round, operations, memory."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import kept_for_backward, peak_bytes
from benchmarks.results import Bar, Comparison, Figure, Row
from vimlight.registry import Registry

__all__ = ["BENCHMARKS", "Bench", "Task"]

Task = Callable[[], Any]
# From `(bench, sizes)` to results, which are printed as they come.
BENCHMARKS: Registry[Callable[..., Iterator[Any]]] = Registry("benchmark", "benchmarks.speed", "BENCHMARKS")


class Bench:
    """Measures on one device.

    Args:
        device: Where.
        scratch: A folder for what has to be written.
        quick: Whether sizes are so small that no bar means anything.

    Attributes:
        device: Where.
        scratch: A folder for what has to be written.
        quick: Whether bars are left out.
    """

    def __init__(self, device: torch.device, scratch: Path, quick: bool = False) -> None:
        self.device = device
        self.scratch = scratch
        self.quick = quick

    def precision(self) -> AbstractContextManager[Any]:
        """Returns a context in which models run as they would there: bfloat16 on a GPU, float32 on a CPU."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def compare(
        self,
        title: str,
        tasks: Mapping[str, Task],
        *,
        rounds: int,
        reference: str | None = None,
        at_most: Mapping[str, float | None] | None = None,
        rarely: Collection[str] = (),
        count: bool = True,
        curve: str | None = None,
        x: float | None = None,
        axis: str = "",
    ) -> Comparison:
        """Runs tasks in turn and compares each with the reference of the same round.

        Args:
            title: What is compared.
            tasks: What to time, by name; each is called once before, to warm up.
            rounds: How often.
            reference: The task that ratios are by; the first if left out.
            at_most: The bars: upper bounds of tasks' ratios.
            rarely: Tasks so slow that they run in the first two rounds alone.
            count: Whether to count operations and memory, for which each task is called twice more.
            curve: Name of the plot that this is a point of.
            x: Where on its axis.
            axis: What the axis is.
        """
        reference = reference or next(iter(tasks))
        times = self._rounds(tasks, rounds, rarely)
        rows = self.rows(times, reference, at_most, tasks if count else {})
        return Comparison(title, reference, rounds, rows, curve, x, axis)

    def rows(
        self,
        times: Sequence[Mapping[str, tuple[float, float]]],
        reference: str,
        at_most: Mapping[str, float | None] | None = None,
        tasks: Mapping[str, Task] | None = None,
    ) -> tuple[Row, ...]:
        """Summarises rounds.

        Args:
            times: For each round, the seconds by the clock and by the processor of what ran in it, by name.
            reference: What the ratios are by.
            at_most: The bars: upper bounds of ratios.
            tasks: What to call to count operations and memory.
        """
        tasks = tasks or {}
        flops = {name: _operations(task) for name, task in tasks.items()}
        rows = []
        for name in times[0]:
            clock = [of[name][0] for of in times if name in of]
            task = tasks.get(name)
            rows.append(
                Row(
                    name,
                    statistics.median(clock),
                    _quartiles(clock),
                    *_ratios(times, name, reference),
                    flops=flops.get(name, 0),
                    flop_ratio=flops[name] / flops[reference] if flops.get(reference) else None,
                    peak_mb=peak_bytes(task, self.device) / 1e6 if task else 0.0,
                    kept_mb=kept_for_backward(task) / 1e6 if task else 0.0,
                    bar=self._bar((at_most or {}).get(name)),
                )
            )
        return tuple(rows)

    def figure(
        self,
        title: str,
        value: float,
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        curve: str | None = None,
        x: float | None = None,
        axis: str = "",
    ) -> Figure:
        """Returns a single number with its bar.

        Args:
            title: What was measured.
            value: The number.
            unit: Its unit.
            at_most: Its upper bound.
            at_least: Its lower bound.
            curve: Name of the plot that this is a point of.
            x: Where on its axis.
            axis: What the axis is.
        """
        return Figure(title, value, unit, self._bar(at_most, at_least), curve, x, axis)

    def _bar(self, at_most: float | None, at_least: float | None = None) -> Bar | None:
        if self.quick or (at_most is None and at_least is None):
            return None
        return Bar(math.inf if at_most is None else at_most, -math.inf if at_least is None else at_least)

    def seconds(self, task: Task) -> tuple[float, float]:
        """Times one call, by the clock and by the processor; on a GPU by its own events."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(self.device)
            start.record()
            task()
            end.record()
            torch.cuda.synchronize(self.device)
            return start.elapsed_time(end) / 1000, 0.0
        clock, processor = time.perf_counter(), time.process_time()
        task()
        return time.perf_counter() - clock, time.process_time() - processor

    def _rounds(
        self, tasks: Mapping[str, Task], rounds: int, rarely: Collection[str]
    ) -> list[dict[str, tuple[float, float]]]:
        for task in tasks.values():
            task()
        found: list[dict[str, tuple[float, float]]] = []
        with _no_collection():
            for index in range(rounds):
                names = [name for name in tasks if name not in rarely or index < 2]
                # Forth and back, so that no task always runs in the wake of the same other.
                names = names if index % 2 == 0 else names[::-1]
                found.append({name: self.seconds(tasks[name]) for name in names})
        return found


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _ratios(
    times: Sequence[Mapping[str, tuple[float, float]]], name: str, reference: str
) -> tuple[float, tuple[float, float], float | None]:
    both = [(of[name], of[reference]) for of in times if name in of]
    clock = [mine[0] / other[0] for mine, other in both]
    processor = [mine[1] / other[1] for mine, other in both if other[1]]
    return statistics.median(clock), _quartiles(clock), statistics.median(processor) if processor else None


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _operations(task: Task) -> int:
    with FlopCounterMode(display=False) as counter:
        task()
    return int(counter.get_total_flops())
