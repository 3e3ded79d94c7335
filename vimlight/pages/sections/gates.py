"""Gates: the share of each module at each place, block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vimlight.pages.sections.base import section
from vimlight.pages.sources import Found
from vimlight.pages.sources.comparison import Comparison
from vimlight.pages.sources.fit import Fit, titled
from vimlight.pages.sources.fit import Gates as Shares
from vimlight.report.figures import Group, heat_map
from vimlight.report.html import Markup
from vimlight.report.parts import figure, folded, grid

_PLACE = re.compile(r"(.*?\d+)\.(.+)")
# More than these are folded away.
_SHOWN = 4


@section("Gates", 70)
def gates(found: Found) -> Iterator[Markup]:
    """Yields a heat map for each run, and for each method and task of a comparison."""
    yield from _some(
        [
            gate_map(fit.gates, f"{title}: what each module weighs at each place after training.")
            for title, fit in titled(found.of(Fit))
            if fit.gates is not None and fit.gates.names and fit.gates.places
        ]
    )
    for comparison in found.of(Comparison):
        yield from _some(
            [
                gate_map(shares, f"{method} for {task} on {backbone}, with most labels and the last seed.")
                for (backbone, method, task), shares in comparison.gates.items()
                if shares.names and shares.places
            ]
        )


def _some(drawn: Sequence[Markup]) -> Iterator[Markup]:
    """Yields some figures, and the others folded away."""
    if drawn:
        yield grid(*drawn[:_SHOWN])
    if len(drawn) > _SHOWN:
        yield folded(f"{len(drawn) - _SHOWN} more", grid(*drawn[_SHOWN:]))


def gate_map(shares: Shares, caption: str) -> Markup:
    """Returns the figure of a run's gates.

    Args:
        shares: The gates, of one place and one module at least.
        caption: What it shows.
    """
    rows, groups = by_block(shares)
    groups = [group._replace(texts=[[f"{value:.2f}" for value in row] for row in group.values]) for group in groups]
    # An even share is no strong gate, so gates of almost 0 look like it.
    values = [abs(value) for row in shares.values for value in row if value == value]
    return figure(heat_map(rows, groups, caption, top=max([*values, 1 / len(shares.names)])), caption)


def by_block(shares: Shares) -> tuple[list[str], list[Group]]:
    """Returns gates as rows of blocks and, for each place in a block, columns of modules.

    Where blocks do not all have the same places, or modules are the longer axis, a row is a place as it is called.
    """
    found = [_PLACE.fullmatch(place) for place in shares.places]
    blocks = list(dict.fromkeys(each[1] for each in found if each))
    places = list(dict.fromkeys(each[2] for each in found if each))
    every = {f"{block}.{place}" for block in blocks for place in places}
    if len(places) < 2 or every != set(shares.places) or len(every) != len(shares.places):
        return list(shares.places), [Group("", shares.names, shares.values)]
    rows = dict(zip(shares.places, shares.values, strict=True))
    groups = [Group(place, shares.names, [rows[f"{block}.{place}"] for block in blocks]) for place in places]
    return blocks, groups
