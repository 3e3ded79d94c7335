"""What methods reach against what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vimlight.comparison.standings import Standings
from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.comparison import Comparison
from vimlight.pages.sources.evaluation import Evaluation
from vimlight.report.figures import Spot, scatter
from vimlight.report.html import Markup
from vimlight.report.parts import figure


@section("Cost", 50)
def costs(found: Found) -> Iterator[Markup]:
    """Yields scores against FLOPs of each comparison, and against time of each evaluation."""
    for comparison in found.of(Comparison):
        yield from filter(None, map(_standing, comparison.tables))
    for evaluation in found.of(Evaluation):
        yield from _evaluation(evaluation)


def _standing(standing: Standings) -> Markup | None:
    spots = []
    for method in standing.methods:
        single = standing.cells.get((method, standing.averaged[0])) if len(standing.averaged) == 1 else None
        value, (_, flops) = standing.average(method) or single, standing.costs[method]
        if value is not None and math.isfinite(flops):
            spots.append(Spot(method, flops, 100 * value.mean, method == standing.reference))
    if len(spots) < 2 or len({spot.cost for spot in spots}) < 2:
        return None
    score = "average score, %" if len(standing.averaged) > 1 else "score, %"
    caption = (
        f"Score against cost on {standing.backbone}, {standing.shots_text}; along the dashed line, nothing reaches "
        "more for less."
    )
    return figure(scatter(spots, "FLOPs of an image, by those of the bare backbone", score), caption)


def _evaluation(evaluation: Evaluation) -> Iterator[Markup]:
    for column in evaluation.columns[-1:]:
        spots = [
            Spot(method.title, method.microseconds, 100 * method.accuracies[column].mean, name == "transmiter")
            for name, method in evaluation.methods.items()
            if column in method.accuracies and math.isfinite(method.microseconds)
        ]
        if len(spots) > 1:
            caption = f"Accuracy ({column}) against the time that a method takes for an image beside the encoders."
            yield figure(scatter(spots, "microseconds an image", f"{column}, %"), caption)
