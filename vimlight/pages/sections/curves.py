"""Curves of training: losses, scores, the learning rate, and everything else that was logged over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.fit import Fit, labels
from vimlight.report.figures import lines
from vimlight.report.html import Markup
from vimlight.report.parts import figure, folded, grid
from vimlight.report.scores import is_share

# More runs than these make one figure a tangle; they are drawn in turns.
_TOGETHER = 8
_ASIDE = ("gate/", "zoo/", "data_wait")


@section("Curves", 60)
def curves(found: Found) -> Iterator[Markup]:
    """Yields a figure for each thing that was logged more than once, all runs together; gates and the like folded."""
    fits = found.of(Fit)
    names = sorted({name for fit in fits for name, points in fit.curves.items() if len(points) > 1}, key=_order)
    for start in range(0, len(fits), _TOGETHER):
        part = fits[start : start + _TOGETHER]
        drawn = {name: _curve(name, part) for name in names if any(_points(fit, name) for fit in part)}
        main = [shown for name, shown in drawn.items() if not name.startswith(_ASIDE)]
        aside = [shown for name, shown in drawn.items() if name.startswith(_ASIDE)]
        if main:
            yield grid(*main)
        if aside:
            yield folded("Gates over time, and the time that the model waited for its data", grid(*aside))


def _curve(name: str, fits: Sequence[Fit]) -> Markup:
    scale = 100 if is_share(name) else 1
    series = {
        text: [(step, scale * value) for step, value in points]
        for text, fit in zip(labels(fits), fits, strict=True)
        if (points := _points(fit, name))
    }
    label = f"{name}, %" if scale == 100 else name
    return figure(lines(series, "step", label), f"{name} over steps.")


def _points(fit: Fit, name: str) -> Sequence[tuple[float, float]]:
    points = fit.curves.get(name, ())
    return points if len(points) > 1 else ()


def _order(name: str) -> tuple[int, str]:
    """Losses first, then scores of validation images, of training images, and the rest."""
    first = ["train/loss", "val/loss", "val/", "train/"]
    return next((n for n, start in enumerate(first) if name.startswith(start)), len(first)), name
