"""What a benchmark yields: comparisons of tasks that ran in turn, and single figures, each with its bar."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

__all__ = ["Bar", "Comparison", "Figure", "Row"]


@dataclasses.dataclass(frozen=True)
class Bar:
    """What is asked of a number.

    Attributes:
        at_most: Its upper bound.
        at_least: Its lower bound.
    """

    at_most: float = math.inf
    at_least: float = -math.inf

    def met(self, value: float) -> bool:
        """Tells whether a number lies within the bounds."""
        return self.at_least <= value <= self.at_most

    def __str__(self) -> str:
        parts = (f"<= {self.at_most:g}" if self.at_most < math.inf else "",)
        return " ".join([*filter(None, parts), *([f">= {self.at_least:g}"] if self.at_least > -math.inf else [])])


@dataclasses.dataclass(frozen=True)
class Row:
    """One task of a comparison.

    Attributes:
        name: What ran.
        seconds: Median over the rounds.
        spread: Quartiles of the seconds.
        ratio: Median over the rounds of its time by that of the reference in the same round.
        ratio_spread: Quartiles of the ratios.
        processor_ratio: The same of processor time, which other load touches less; nothing on a GPU.
        flops: Operations of one call.
        flop_ratio: By those of the reference.
        peak_mb: Most memory that tensors made by one call held at a time.
        kept_mb: What a forward pass keeps for the backward pass.
        bar: What is asked of the ratio.
    """

    name: str
    seconds: float
    spread: tuple[float, float]
    ratio: float
    ratio_spread: tuple[float, float]
    processor_ratio: float | None
    flops: int
    flop_ratio: float | None
    peak_mb: float
    kept_mb: float
    bar: Bar | None = None

    @property
    def value(self) -> float:
        """What the bar is about."""
        return self.ratio


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Tasks that ran in turn, so that other load on the machine touched all of them alike.

    Attributes:
        title: What was compared.
        reference: The task that the ratios are by.
        rounds: How often each ran.
        rows: One a task.
        curve: Name of the plot that this is a point of.
        x: Where on its axis.
        axis: What the axis is.
    """

    title: str
    reference: str
    rounds: int
    rows: tuple[Row, ...]
    curve: str | None = None
    x: float | None = None
    axis: str = ""

    def row(self, name: str) -> Row:
        """Returns the row of a task."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        rows = [{**dataclasses.asdict(row), "bar": row.bar and str(row.bar), "met": _met(row)} for row in self.rows]
        return {**dataclasses.asdict(self), "kind": "comparison", "rows": rows}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A single number.

    Attributes:
        title: What was measured.
        value: The number.
        unit: Its unit.
        bar: What is asked of it.
        curve: Name of the plot that this is a point of.
        x: Where on its axis.
        axis: What the axis is.
    """

    title: str
    value: float
    unit: str = ""
    bar: Bar | None = None
    curve: str | None = None
    x: float | None = None
    axis: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return {**dataclasses.asdict(self), "kind": "figure", "bar": self.bar and str(self.bar), "met": _met(self)}


def _met(result: Row | Figure) -> bool | None:
    return None if result.bar is None else result.bar.met(result.value)
