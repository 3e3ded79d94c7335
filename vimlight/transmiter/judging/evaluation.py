"""Evaluation from caches: methods by protocol, with their cost, and how often the promise holds.

Nothing here loads a model or trains one; labels of the images to be scored stay on this side of every method.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vimlight.errors import ConfigError, DataError
from vimlight.transmiter.cache.names import SomeNames
from vimlight.transmiter.judging.methods import (
    Candidates,
    Fit,
    Method,
    Unsuitable,
    create_method,
    list_methods,
    prepare,
)
from vimlight.transmiter.judging.methods.safe import PROMISED
from vimlight.transmiter.judging.metrics import Score, Scorer
from vimlight.transmiter.judging.protocols import PROTOCOLS, Group, Protocol, resolve_partition
from vimlight.transmiter.judging.roles import MODELS, Inputs

__all__ = ["Evaluation", "Promise", "Result", "evaluate", "promise"]

# Enough to fill the vector units, few enough to cost nothing.
_COUNTED = 16


@dataclass(frozen=True)
class Result:
    """What one method reaches, and costs.

    Attributes:
        method: Its name.
        title: Its name in tables.
        accuracies: Accuracy of each group, and what the protocol makes of them.
        scores: All scores of each group.
        choices: What the method chose, and on which data.
        labels: Whether it looked at labels, to learn or to choose, or is made with labels beyond the source's.
        parameters: How many numbers it keeps beside the models.
        encoders: The image encoders that run for each image, by role.
        added_flops: FLOPs for each image beside the encoders, two for a multiply-add, matrix products counted.
        seconds_per_image: Measured time for each image beside the encoders.
        predictions: Predicted class indices `(n,)` int64 of each group's images.
    """

    method: str
    title: str
    accuracies: dict[str, float]
    scores: dict[str, Score]
    choices: dict[str, Any]
    labels: bool
    parameters: int
    encoders: tuple[str, ...]
    added_flops: float
    seconds_per_image: float
    predictions: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The results of all methods on one set of caches.

    Attributes:
        protocol: The protocol's name.
        class_names: Names of the C task classes.
        groups: The groups that were scored.
        results: The results by method, in the order of the table.
        left_out: Why a method is not among them, by method.
        ids: Sample ids of each group's images, read when they are asked for.
        labels: Their class indices `(n,)` int64.
    """

    protocol: str
    class_names: tuple[str, ...]
    groups: tuple[Group, ...]
    results: dict[str, Result] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    ids: dict[str, Sequence[str]] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)


def evaluate(
    inputs: Inputs,
    protocol: str,
    *,
    base: Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    shots: int | None = None,
    seed: int = 0,
    batch_size: int = 4096,
    device: torch.device | str = "cpu",
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Evaluation:
    """Scores methods on cached logits.

    Args:
        inputs: Caches and adapters.
        protocol: Name in `PROTOCOLS`.
        base: Class indices of the base classes, instead of those of the target's manifest.
        methods: Names of the methods; all by default.
        settings: Settings of methods by name.
        shots: Labelled training images of each class, for methods that use labels; all by default.
        seed: Decides which.
        batch_size: Images at a time.
        device: Where the methods compute.
        progress: Wrapped around the methods, to show a progress bar.

    Raises:
        UnknownNameError: If there is no such protocol, method or setting.
        ConfigError: If the protocol lacks base classes or shots, or there are no images in a batch.
        DataError: If a group has no image, or logits are not finite.
    """
    chosen, place = PROTOCOLS[protocol](), torch.device(device)
    created = {name: create_method(name, (settings or {}).get(name)) for name in methods or list_methods()}
    if chosen.few_shot and shots is None:
        raise ConfigError(f"protocol {protocol!r} needs the number of labelled images of each class: pass --shots 16")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    target = inputs.target
    partition = resolve_partition(chosen, target.class_names, target.partitions, base)
    groups = chosen.groups(target.num_classes, partition)
    rows = {group.name: inputs.rows(group) for group in groups}
    _check_groups(inputs, rows)
    candidates = tuple(inputs.candidates(group, rows[group.name], batch_size, place) for group in groups)
    data = _fit_data(inputs, chosen, candidates, partition, shots, seed, place)
    ids: dict[str, Sequence[str]] = {name: SomeNames(target.ids, some.numpy()) for name, some in rows.items()}
    labels = {name: inputs.labels_of(some) for name, some in rows.items()}
    found = Evaluation(protocol, target.class_names, groups, ids=ids, labels=labels)
    for name in progress(sorted(created, key=list_methods().index)):
        try:
            found.results[name] = _run(name, created[name], inputs, chosen, labels, data)
        except Unsuitable as reason:
            found.left_out[name] = str(reason)
    return found


def _check_groups(inputs: Inputs, rows: Mapping[str, Tensor]) -> None:
    for name, some in rows.items():
        if not len(some):
            raise DataError(f"cache {str(inputs.target.path)!r} has no image of the classes of group {name!r}")


def _fit_data(
    inputs: Inputs,
    protocol: Protocol,
    groups: tuple[Candidates, ...],
    partition: Mapping[str, Sequence[int]],
    shots: int | None,
    seed: int,
    device: torch.device,
) -> Fit:
    target = inputs.target
    known = protocol.known(target.num_classes, partition)
    return Fit(
        class_names=target.class_names,
        column_names=target.class_names + target.aux_names,
        known=known,
        roles=inputs.roles(),
        groups=groups,
        caches={role: cache for role, cache in inputs.caches.items() if role.endswith("_train")},
        adapters=inputs.adapters,
        train=inputs.labelled("_train", known, device, shots=shots, seed=seed),
        val=inputs.labelled("_val", known, device),
        scale=target.head.scale if target.head is not None else None,
        device=device,
    )


@torch.no_grad()
def _run(
    name: str, method: Method, inputs: Inputs, protocol: Protocol, labels: Mapping[str, Tensor], data: Fit
) -> Result:
    """Fits a method and scores it."""
    allowed = data.for_method(method)
    prepare(method, allowed)
    flops = _count_flops(method, data)
    judged = {group.name: _score(method, group, labels[group.name], data) for group in data.groups}
    scores = {group: score for group, (score, _, _) in judged.items()}
    counts = {group: score.count for group, score in scores.items()}
    return Result(
        method=name,
        title=method.title,
        accuracies=protocol.combine({group: score.accuracy for group, score in scores.items()}, counts),
        scores=scores,
        choices=method.choices(),
        labels=allowed.labels_used or method.made_with_labels,
        parameters=method.num_parameters(),
        encoders=_encoders(method, inputs),
        added_flops=flops,
        seconds_per_image=sum(seconds for _, _, seconds in judged.values()) / sum(counts.values()),
        predictions={group: predicted for group, (_, predicted, _) in judged.items()},
    )


def _score(method: Method, candidates: Candidates, labels: Tensor, data: Fit) -> tuple[Score, Tensor, float]:
    """Returns a method's scores and predictions on a group, and the seconds it took beside reading and scoring."""
    scorer, done, seconds = Scorer(candidates.columns, len(data.class_names)), 0, 0.0
    # Joined at the end, the predictions of many images would lie in memory twice.
    predicted = torch.empty_like(labels)
    for images in candidates.batches(method.reads, None):
        start = _now(data.device)
        logits = method(images)
        seconds += _now(data.device) - start
        batch = slice(done, done + len(images))
        predicted[batch] = scorer.update(logits, labels[batch])
        done = batch.stop
    return scorer.compute(), predicted, seconds


def _count_flops(method: Method, data: Fit) -> float:
    images = next(data.groups[0].batches(method.reads, _COUNTED))
    with FlopCounterMode(display=False) as counter:
        method(images)
    return float(counter.get_total_flops()) / len(images)


def _encoders(method: Method, inputs: Inputs) -> tuple[str, ...]:
    """Returns the image encoders that a method needs, by role; one that two roles share is named once."""
    roles = ["target" if role.startswith("target_") and role != "target_tuned" else role for role in method.reads]
    by_weights = {inputs.caches[role].manifest.weights or role: role for role in reversed(roles)}
    return tuple(sorted(by_weights.values(), key=MODELS.index))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Promise:
    """How often a method is no worse than the better of target zero-shot and fine-tuned source.

    Attributes:
        kept: In how many cases it is.
        cases: Number of cases: every accuracy of every evaluation that has both models.
        worst: The smallest difference from the better one, negative where the promise is broken.
        mean: The mean difference.
    """

    kept: int
    cases: int
    worst: float
    mean: float


def promise(evaluations: Iterable[Evaluation]) -> dict[str, dict[str, Promise]]:
    """Counts how often the promise is kept.

    Args:
        evaluations: Several seeds or data sets under one protocol.

    Returns:
        By method, and by accuracy such as `"base"`; nothing where one of the two models is missing.
    """
    margins: dict[str, dict[str, list[float]]] = {}
    for found in evaluations:
        if not set(PROMISED) <= set(found.results):
            continue
        for name, result in found.results.items():
            for metric, accuracy in result.accuracies.items():
                better = max(found.results[model].accuracies[metric] for model in PROMISED)
                margins.setdefault(name, {}).setdefault(metric, []).append(accuracy - better)
    return {
        name: {metric: _promise(values) for metric, values in by_metric.items()} for name, by_metric in margins.items()
    }


def _promise(margins: Sequence[float]) -> Promise:
    # A sum of products of counts may miss by a rounding error what is equal.
    kept = sum(margin > -1e-9 for margin in margins)
    return Promise(kept, len(margins), min(margins), sum(margins) / len(margins))
