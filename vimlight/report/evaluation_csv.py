"""Evaluations from caches as CSV: every number, or what every method said of every image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vimlight.transmiter.judging.summary import Run, records

__all__ = ["numbers_csv", "predictions_csv"]

_FIELDS = ("method", "dataset", "shots", "seed", "metric", "value")
_ABOUT = ("dataset", "shots", "seed")


def numbers_csv(runs: Sequence[Run]) -> str:
    """Returns every number of every run: method, data set, shots, seed, metric, value.

    Args:
        runs: The runs.
    """
    return _csv(_FIELDS, ([getattr(record, field) for field in _FIELDS] for record in records(runs)))


def predictions_csv(runs: Sequence[Run]) -> str:
    """Returns a row for every image of every group: `id`, `group`, `label`, and the class index each method predicts.

    Before these stand `dataset`, `shots` and `seed` as far as the runs differ in them. A method that some runs lack has
    empty cells there.

    Args:
        runs: The runs.
    """
    methods = list(dict.fromkeys(name for run in runs for name in run.evaluation.results))
    about = [field for field in _ABOUT if len({getattr(run, field) for run in runs}) > 1]
    header = [*about, "id", "group", "label", *methods]
    return _csv(header, (row for run in runs for row in _rows(run, about, methods)))


def _rows(run: Run, about: Sequence[str], methods: Sequence[str]) -> Iterator[list[Any]]:
    found, own = run.evaluation, [getattr(run, field) for field in about]
    for group, ids in found.ids.items():
        said = [
            found.results[name].predictions[group].tolist() if name in found.results else [""] * len(ids)
            for name in methods
        ]
        for name, label, *predicted in zip(ids, found.labels[group].tolist(), *said, strict=True):
            yield [*own, name, group, label, *predicted]


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()
