"""Results of `vimlight evaluate`, and of the demo's second half: methods on cached logits by a protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vimlight.pages.sources.base import READERS, Reader, Run, number, sound
from vimlight.pages.sources.comparison import results_of, says
from vimlight.report.figures import Bin
from vimlight.report.tables import Statistic

__all__ = ["Evaluation", "Method"]


class Method(NamedTuple):
    """What one method did in all runs.

    Attributes:
        title: What it is called.
        accuracies: By column: data set, shots and group of classes, as far as they differ.
        per_class: Accuracy of each class by group, means over runs.
        calibration: Calibration error by group, means over runs.
        bins: Reliability by group, of all runs.
        encoders: Whose encoders run for an image.
        microseconds: What an image takes beside them.
        flops: What it adds for an image, in floating-point operations.
    """

    title: str
    accuracies: Mapping[str, Statistic]
    per_class: Mapping[str, Mapping[str, float]]
    calibration: Mapping[str, float]
    bins: Mapping[str, Sequence[Bin]]
    encoders: Sequence[str]
    microseconds: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Evaluation(Run):
    """Methods under one protocol.

    Attributes:
        protocol: Its name.
        methods: By name.
        sources: What was evaluated: role, path, model and hash.
        left_out: Methods that could not be, with the reason.
    """

    protocol: str
    methods: Mapping[str, Method]
    sources: Sequence[tuple[str, str, str, str]]
    left_out: Mapping[str, str]

    kind = "evaluation"

    @property
    def columns(self) -> list[str]:
        """The accuracies' names."""
        return list(dict.fromkeys(column for method in self.methods.values() for column in method.accuracies))


def _read(file: Path, name: str) -> Evaluation:
    content = results_of(file)
    with sound(file):
        runs = [run for run in content["runs"] if isinstance(run, Mapping)]
        names = dict.fromkeys(method for run in runs for method in run["methods"])
        columns = _columns(content["summary"])
        methods = {method: _method(method, runs, columns) for method in names}
        sources = [
            (str(role), str(each.get("path", "")), str(each.get("model", "")), str(each.get("hash", "")))
            for run in runs[:1]
            for role, each in run["sources"].items()
        ]
        reasons = {str(key): str(text) for run in runs for key, text in run.get("left_out", {}).items()}
        versions = {"vimlight": str(content.get("vimlight", ""))}
        return Evaluation(name, file.parent, versions, str(content["protocol"]), methods, sources, reasons)


def _columns(summary: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Statistic]]:
    """Returns accuracies by method and column; scores of another kind have a stroke in their name."""
    shown = [row for row in summary if "/" not in row["metric"]]
    several = [len({row[key] for row in shown}) > 1 for key in ("dataset", "shots")]
    found: dict[str, dict[str, Statistic]] = {}
    for row in shown:
        parts = [str(row["dataset"])] * several[0] + [f"{row['shots']}-shot"] * several[1] + [str(row["metric"])]
        seeds = {int(seed): number(value) for seed, value in row["seeds"].items()}
        if not seeds:
            raise ValueError("a row of the summary has no seed")
        found.setdefault(str(row["method"]), {})[" ".join(parts)] = Statistic(seeds)
    return found


def _method(name: str, runs: Sequence[Mapping[str, Any]], columns: Mapping[str, Mapping[str, Statistic]]) -> Method:
    results = [run["methods"][name] for run in runs if name in run["methods"]]
    groups = dict.fromkeys(group for result in results for group in result["scores"])
    scores = {group: [result["scores"][group] for result in results if group in result["scores"]] for group in groups}
    return Method(
        str(results[0]["title"]), columns.get(name, {}),
        {group: _class_means(found) for group, found in scores.items()},
        {group: _mean([number(score["calibration_error"]) for score in found]) for group, found in scores.items()},
        {group: _pooled([score["reliability"] for score in found if score.get("reliability")])
         for group, found in scores.items()},
        [str(role) for role in results[0]["encoders"]],
        1e6 * _mean([number(result["seconds_per_image"]) for result in results]),
        number(results[0]["added_flops"]),
    )  # fmt: skip


def _class_means(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for score in scores:
        for label, share in score["per_class"].items():
            values.setdefault(str(label), []).append(number(share))
    return {label: _mean(found) for label, found in values.items()}


def _pooled(runs: Sequence[Sequence[Sequence[Any]]]) -> list[Bin]:
    """Joins the bins of several runs."""
    found = []
    for bins in zip(*runs, strict=False):
        made = [Bin(int(count), number(confidence), number(accuracy)) for count, confidence, accuracy in bins]
        total = sum(each.images for each in made)
        means = [sum(each.images * each[part] for each in made) / total if total else 0.0 for part in (1, 2)]
        found.append(Bin(total, *means))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


READERS.register("evaluation")(
    Reader(["results.json", "transfer.json"], "vimlight evaluate or demo", lambda file: says(file, "protocol"), _read)
)
