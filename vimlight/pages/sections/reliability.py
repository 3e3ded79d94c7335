"""How far confidence can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.evaluation import Evaluation
from vimlight.pages.sources.fit import Fit, labels
from vimlight.report.figures import Bin
from vimlight.report.figures import reliability as drawn
from vimlight.report.html import Markup
from vimlight.report.parts import figure, grid

# Of an evaluation's methods, the models alone and those that are meant to move what was learnt.
_SHOWN = ("source_tuned", "target_zero_shot", "transmiter", "transmiter_plus", "safe", "target_tuned")


@section("Reliability", 110)
def reliability(found: Found) -> Iterator[Markup]:
    """Yields the curves of runs, split by split, and of an evaluation's methods, group by group."""
    parts = []
    for split in ("val", "test"):
        fits = [fit for fit in found.of(Fit) if split in fit.reliability]
        series = {text: fit.reliability[split] for text, fit in zip(labels(fits), fits, strict=True)}
        parts += _curves(series, f"{'Validation' if split == 'val' else 'Test'} images")
    for evaluation in found.of(Evaluation):
        methods = {name: evaluation.methods[name] for name in _SHOWN if name in evaluation.methods}
        for group in dict.fromkeys(group for method in methods.values() for group in method.bins):
            series = {m.title: m.bins[group] for m in methods.values() if m.bins.get(group)}
            parts += _curves(series, f"{evaluation.name}, {group} classes")
    if parts:
        yield grid(*parts)


def _curves(series: Mapping[str, Sequence[Bin]], text: str) -> list[Markup]:
    if not any(each.images for bins in series.values() for each in bins):
        return []
    errors = ", ".join(f"{name} {100 * error(bins):.1f}" for name, bins in series.items())
    caption = f"{text}: accuracy over confidence, larger dots for more images. Expected calibration error, %: {errors}."
    return [figure(drawn(series, caption), caption)]


def error(bins: Sequence[Bin]) -> float:
    """Returns the expected calibration error: the mean distance of confidence from accuracy over all predictions."""
    total = sum(each.images for each in bins)
    return sum(each.images * abs(each.confidence - each.accuracy) for each in bins) / total if total else 0.0
