"""What several evaluations say together: flat records, means with spread over seeds, averages over data sets."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vimlight.errors import DataError
from vimlight.transmiter.judging.evaluation import Evaluation, Result, promise
from vimlight.transmiter.judging.metrics import confidence_interval
from vimlight.transmiter.judging.protocols import harmonic_mean

__all__ = ["AVERAGE", "Record", "Run", "as_dict", "averages", "records"]

AVERAGE = "average"


@dataclass(frozen=True)
class Run:
    """One evaluation and what it is one of.

    Attributes:
        dataset: Name of the data set.
        shots: Labelled images of each class that methods got; none for all there were.
        seed: The seed.
        evaluation: The results.
        sources: Caches and adapters by role: path, hash, model.
    """

    dataset: str
    shots: int | None
    seed: int
    evaluation: Evaluation
    sources: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One number.

    Attributes:
        method: Name of the method.
        dataset: Name of the data set, or `"average"`.
        shots: Labelled images of each class, none for all there were.
        seed: The seed.
        metric: `"base"`, `"harmonic"`, ..., for accuracies; `"base/calibration_error"` and the like for other scores.
        value: The number.
    """

    method: str
    dataset: str
    shots: int | None
    seed: int
    metric: str
    value: float


def records(runs: Iterable[Run]) -> list[Record]:
    """Returns every number of every run.

    Args:
        runs: The runs.

    Raises:
        DataError: If two runs are of one data set, number of shots and seed.
    """
    found: dict[tuple[Any, ...], Record] = {}
    for run in runs:
        for name, result in run.evaluation.results.items():
            for metric, value in _numbers(result).items():
                record = Record(name, run.dataset, run.shots, run.seed, metric, value)
                key = dataclasses.astuple(record)[:-1]
                if key in found:
                    raise DataError(f"two runs of {run.dataset!r}, shots {run.shots or 'all'}, seed {run.seed}")
                found[key] = record
    return list(found.values())


def averages(found: Sequence[Record]) -> list[Record]:
    """Returns means over data sets, seed by seed, of the methods and seeds that have all of them.

    A harmonic mean is averaged too; that of the averaged accuracies, which some tables print, is another number and is
    called `"harmonic of averages"`.

    Args:
        found: Records of two data sets or more; of fewer, nothing is returned.
    """
    datasets = list(dict.fromkeys(record.dataset for record in found))
    by_case: dict[tuple[str, int | None, int, str], list[float]] = {}
    for record in found:
        by_case.setdefault((record.method, record.shots, record.seed, record.metric), []).append(record.value)
    whole = {case: statistics.fmean(values) for case, values in by_case.items() if len(values) == len(datasets) > 1}
    for method, shots, seed, metric in [case for case in whole if case[3] == "harmonic"]:
        halves = [whole[method, shots, seed, half] for half in ("base", "novel")]
        whole[method, shots, seed, f"{metric} of averages"] = harmonic_mean(*halves)
    return [
        Record(method, AVERAGE, shots, seed, metric, value) for (method, shots, seed, metric), value in whole.items()
    ]


def as_dict(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns everything as plain values, for `results.json`.

    Args:
        runs: The runs, under one protocol.
    """
    found = records(runs)
    return {
        "protocol": runs[0].evaluation.protocol,
        "summary": _summary([*found, *averages(found)]),
        "promise": {
            method: {metric: dataclasses.asdict(kept) for metric, kept in by_metric.items()}
            for method, by_metric in promise(run.evaluation for run in runs).items()
        },
        "runs": [_run_dict(run) for run in runs],
    }


def _numbers(result: Result) -> Mapping[str, float]:
    others = {
        f"{group}/{name}": getattr(score, name)
        for group, score in result.scores.items()
        for name in ("calibration_error", "log_loss")
    }
    return {**result.accuracies, **others}


def _summary(found: Iterable[Record]) -> list[dict[str, Any]]:
    cases: dict[tuple[str, str, int | None, str], dict[int, float]] = {}
    for record in found:
        cases.setdefault((record.method, record.dataset, record.shots, record.metric), {})[record.seed] = record.value
    rows = []
    for (method, dataset, shots, metric), by_seed in cases.items():
        interval = confidence_interval(list(by_seed.values()))
        rows.append({
            "method": method, "dataset": dataset, "shots": shots, "metric": metric, "mean": interval.mean,
            "std": _finite(interval.std), "confidence_95": _finite(interval.half_width),
            "seeds": {str(seed): value for seed, value in by_seed.items()},
        })  # fmt: skip
    return rows


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _run_dict(run: Run) -> dict[str, Any]:
    found = run.evaluation
    names = found.class_names
    groups = {
        group.name: {"classes": [names[c] for c in group.classes], "columns": [names[c] for c in group.columns]}
        for group in found.groups
    }
    results = {name: _result_dict(result, names) for name, result in found.results.items()}
    about = {"dataset": run.dataset, "shots": run.shots, "seed": run.seed, "sources": run.sources, "groups": groups}
    return {**about, "methods": results, "left_out": found.left_out}


def _result_dict(result: Result, names: Sequence[str]) -> dict[str, Any]:
    facts = {key: value for key, value in vars(result).items() if key not in ("method", "scores", "predictions")}
    scores = {
        group: {**vars(score), "per_class": {names[label]: share for label, share in score.per_class.items()}}
        for group, score in result.scores.items()
    }
    return {**facts, "encoders": list(result.encoders), "scores": scores}
