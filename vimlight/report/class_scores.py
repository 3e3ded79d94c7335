"""How well each class is found, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["ClassScore", "class_scores"]


class ClassScore(NamedTuple):
    """One class; a share of nothing is none.

    Attributes:
        name: Its name.
        images: How many images, or pixels, have it.
        precision: Share of those that are given it which have it.
        recall: Share of those that have it which are given it.
        f1: The harmonic mean of both, which is 0 where the class is only missed or only given wrongly.
    """

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


def class_scores(counts: npt.ArrayLike, names: Sequence[str]) -> list[ClassScore]:
    """Returns the scores of each class, as scikit-learn's `precision_recall_fscore_support` has them.

    Args:
        counts: `(C, C)`, rows the true classes; or `(C, 2, 2)` for several labels an image, each laid out as
            `[[true negative, false positive], [false negative, true positive]]`.
        names: Names of the C classes.
    """
    matrix = np.asarray(counts, dtype=float)
    if matrix.ndim == 2:
        hits, true, given = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    else:
        hits, true, given = matrix[:, 1, 1], matrix[:, 1].sum(axis=1), matrix[:, :, 1].sum(axis=1)
    rows = zip(names, hits.tolist(), true.tolist(), given.tolist(), strict=True)
    return [
        ClassScore(name, round(all_), _share(hit, named), _share(hit, all_), _share(2 * hit, all_ + named))
        for name, hit, all_, named in rows
    ]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
