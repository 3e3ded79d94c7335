"""Never worse: a pool of experts whose weights rest on evidence, and are equal where there is none.

The promise is to be no worse than the better of the target's zero-shot logits and the fine-tuned source. One rule
serves it: the weights of a log-linear pool minimise its log-loss on labelled images, with a prior that believes in
equal weights.

*Evidence.* There can be labels for the classes that the source was tuned on. With validation labels of these the
problem is convex. The pool has to prove itself against the better of the two models of the promise: its loss must be
lower by more than the standard error of the difference, lower too on images left out of the choice, and it must be
right no less often; else that model takes its place. Without labels the weights follow from how well the experts'
votes agree, by the likelihood of Dawid and Skene's model; see `vimlight.transmiter.judging.pooling`.

*Of the other classes* there are no labels at all, and weights fitted on tuned classes would not do: an expert that fits
these best may have forgotten the others. But which of the two encoders is better before any tuning is a question about
classes in general, and the tuned ones are a sample of them: the target's share of the weights is the probability, by a
t-test of the zero-shot log-losses with a class as the unit, that it is the better one; without labels it is one half.
Each encoder's share is dealt out equally among the experts that rest on it. These are the model before and after
tuning, so that half of the change is taken, which other classes may gain from or lose by.

*Between the two*, probability is shared out as the target's zero-shot logits do: the pools only decide how each share
is split. So the rule is one and the same whether a protocol scores base and novel classes apart or together.

Experts are first made equally sure of themselves: each is scaled to the target's mean entropy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vimlight.errors import ConfigError
from vimlight.transmiter.judging.methods import METHODS, Fit, Images, Method, Unsuitable, create_method, prepare
from vimlight.transmiter.judging.pooling import (
    agreement_weights,
    fit_weights,
    left_out_loss,
    match_entropy,
    mean_entropy,
    pool,
)

__all__ = ["ADAPTED", "EXPERTS", "PROMISED", "Safe"]

EXPERTS = ("target_zero_shot", "source_zero_shot", "source_tuned")
# What tuning makes of the target: all say much the same, so the first that can be had speaks for them.
ADAPTED = ("gap_ridge_features", "gap_ridge", "transmiter")
PROMISED = ("target_zero_shot", "source_tuned")
# Own settings would be chosen on the labels that the pool's weights are chosen on.
_FIXED: dict[str, dict[str, Any]] = {"eft": {"alpha": 1.0}}
_MOST_IMAGES = 5000


@dataclass(frozen=True)
class _Block:
    """Classes that are weighed together, and the weights of the experts among them.

    Attributes:
        columns: The classes, `(B,)` int64.
        weights: `(K,)`, the experts' heat included.
        shares: The weights before that, for the report.
        criterion: What they were chosen by.
    """

    columns: Tensor
    weights: Tensor
    shares: dict[str, float]
    criterion: str


@METHODS.register("safe")
class Safe(Method):
    """Mixes both models before and after tuning, as far as they are there: the tuned target is what an adapter makes.

    Args:
        experts: Names of the methods to mix, `target_zero_shot` always among them; by default those of `EXPERTS` and
            the first of `ADAPTED` that can be had.
        prior: How many validation images' worth of belief there is in equal weights.

    Raises:
        ConfigError: If the prior is negative.
    """

    title = "safe"
    place = 60
    uses_labels = True

    def __init__(self, experts: Sequence[str] | None = None, prior: float = 1.0) -> None:
        if prior < 0:
            raise ConfigError(f"prior of 'safe' must be at least 0, got {prior}")
        self._instead = () if experts is not None else ADAPTED
        chosen = (*EXPERTS, *ADAPTED) if experts is None else experts
        names = ["target_zero_shot", *(name for name in chosen if name != "target_zero_shot")]
        if "safe" in names:
            raise ConfigError("'safe' cannot be one of its own experts")
        self._candidates = {name: create_method(name, _FIXED.get(name)) for name in dict.fromkeys(names)}
        self._prior = prior

    def fit(self, data: Fit) -> None:
        """Fits the experts that can be had, and weighs them.

        Raises:
            Unsuitable: If there is nothing to mix with the target.
        """
        self._experts: dict[str, Method] = {}
        for name, method in self._candidates.items():
            if name in self._instead and set(self._experts) & set(self._instead):
                continue
            try:
                prepare(method, data)
            except Unsuitable:
                continue
            self._experts[name] = method
        if len(self._experts) < 2:
            raise Unsuitable("needs --source-tuned, --adapter or another expert to mix with the target")
        self.reads = tuple(dict.fromkeys(role for method in self._experts.values() for role in method.reads))
        known = set(data.known)
        tuned = _blocks(set(group.columns) & known for group in data.groups)
        others = _blocks(set(group.columns) - known for group in data.groups)
        self._blocks = [self._weigh(block, data) for block in tuned] + [self._level(block, data) for block in others]

    def __call__(self, images: Images) -> Tensor:
        """Returns log-probabilities of all task classes `(n, C)`."""
        opinions = self._opinions(images)
        target = opinions[0].log_softmax(dim=1)
        refined = target.clone()
        for block in self._blocks:
            columns = block.columns.to(target.device)
            mixed = pool(opinions[:, :, columns].log_softmax(dim=2), block.weights).log_softmax(dim=1)
            refined[:, columns] = target[:, columns].logsumexp(dim=1, keepdim=True) + mixed
        return refined

    def choices(self) -> dict[str, Any]:
        """Returns the experts' weights for each block of classes, and what they were chosen by."""
        weighed = [
            {"classes": len(block.columns), "weights": block.shares, "chosen": block.criterion}
            for block in self._blocks
        ]
        return {"blocks": weighed}

    def num_parameters(self) -> int:
        """Returns the size of the experts and of the weights."""
        weights = sum(len(block.weights) for block in self._blocks)
        return weights + sum(method.num_parameters() for method in self._experts.values())

    def _opinions(self, images: Images) -> Tensor:
        """Returns the logits of all experts `(K, n, C)`, the target's first."""
        return torch.stack([method(images).float() for method in self._experts.values()])

    def _weigh(self, block: tuple[int, ...], data: Fit) -> _Block:
        columns = torch.tensor(block)
        found = self._labelled(block, data)
        if found is None:
            logits = self._sample(block, data)[:, :, columns].cpu()
            heat = _heat(logits)
            weights = agreement_weights(logits.argmax(dim=2), len(block))
            criterion = f"agreement on {logits.shape[1]} unlabelled images of those to be scored"
            return _Block(columns, weights * heat, self._shares(weights), criterion)
        logits, labels = found
        heat = _heat(logits)
        logs = (logits * heat[:, None, None]).log_softmax(dim=2)
        weights = self._proven(fit_weights(logs, labels, prior=self._prior), logs, labels)
        criterion = f"log-loss on {len(labels)} validation images"
        return _Block(columns, weights * heat, self._shares(weights), criterion)

    def _level(self, block: tuple[int, ...], data: Fit) -> _Block:
        """Returns weights for classes that the source was not tuned on: equal ones within each encoder's share."""
        columns = torch.tensor(block)
        heat = _heat(self._sample(block, data)[:, :, columns].cpu())
        share = _target_share(data)
        known = 0.5 if share is None else share
        weights = _dealt(list(self._experts.values()), known)
        criterion = "no evidence: equal weights"
        if share is not None:
            criterion = f"target's encoder the better one with probability {share:.2f}, by zero-shot on tuned classes"
        return _Block(columns, weights * heat, self._shares(weights), criterion)

    def _labelled(self, block: tuple[int, ...], data: Fit) -> tuple[Tensor, Tensor] | None:
        """Returns the experts' logits `(K, n, B)` and the labels of validation images of these classes, if any."""
        val = data.val
        if val is None or not set(self.reads) <= val.roles or len(set(block) & set(val.classes)) < 2:
            return None
        columns = torch.tensor(block)
        labels = val.labels.cpu()
        rows = torch.isin(labels, columns)
        logits = self._opinions(val.images(self.reads, block))[:, rows.to(data.device)][:, :, columns.to(data.device)]
        return logits.double().cpu(), torch.searchsorted(columns, labels[rows])

    def _sample(self, block: tuple[int, ...], data: Fit) -> Tensor:
        """Returns the experts' logits `(K, n, C)` of images to be scored among these classes, up to some thousands."""
        groups = [group for group in data.groups if set(block) <= set(group.columns)]
        quota = -(-_MOST_IMAGES // len(groups))
        parts = [self._opinions(images) for group in groups for images in group.batches(self.reads, quota)]
        return torch.cat(parts, dim=1).double()

    def _proven(self, weights: Tensor, logs: Tensor, labels: Tensor) -> Tensor:
        """Returns the weights if the pool is proven better, else all weight on the better model of the promise."""
        alone = {place: logs[place : place + 1] for place, name in enumerate(self._experts) if name in PROMISED}
        heats = {place: fit_weights(expert, labels) for place, expert in alone.items()}
        losses = {place: _losses(pool(expert, heats[place]), labels) for place, expert in alone.items()}
        better = min(losses, key=lambda place: float(losses[place].mean()))
        mixed = pool(logs, weights)
        gain = losses[better] - _losses(mixed, labels)
        left_out = left_out_loss(alone[better], labels) - left_out_loss(logs, labels, prior=self._prior)
        least = max(_hits(logs[place], labels) for place in alone)
        if left_out > 0 and gain.mean() > gain.std() / len(gain) ** 0.5 and _hits(mixed, labels) >= least:
            return weights
        only = torch.zeros_like(weights)
        only[better] = heats[better][0]
        return only

    def _shares(self, weights: Tensor) -> dict[str, float]:
        return {name: round(float(weight), 4) for name, weight in zip(self._experts, weights, strict=True)}


def _blocks(columns: Iterable[set[int]]) -> list[tuple[int, ...]]:
    """Returns the sets once each, in order; a class alone has nothing to be told from."""
    return list(dict.fromkeys(tuple(sorted(block)) for block in columns if len(block) > 1))


def _target_share(data: Fit) -> float | None:
    """Returns how probable it is that the target's encoder is better on classes that were not asked for, if known."""
    from scipy.stats import t as student

    val = data.validation(("target", "source"))
    if val is None:
        return None
    columns, labels = list(val.classes), torch.searchsorted(torch.tensor(val.classes), val.labels.cpu())
    losses = []
    for role in ("target", "source"):
        logits = val.read(role)[:, columns].double().cpu()
        losses.append(_losses(logits * fit_weights(logits.log_softmax(dim=1)[None], labels), labels))
    less = losses[1] - losses[0]
    by_class = torch.stack([less[labels == place].mean() for place in range(len(columns))])
    error = float(by_class.std()) / len(by_class) ** 0.5
    return float(student.cdf(float(by_class.mean()) / error, len(by_class) - 1)) if error else 0.5


def _dealt(experts: Sequence[Method], share: float) -> Tensor:
    """Returns weights `(K,)`: the shares of target and source, each dealt out equally among those that rest on it."""
    encoders = [{role.split("_")[0] for role in expert.reads} for expert in experts]
    rests = torch.tensor([[name in found for name in ("target", "source")] for found in encoders]).double()
    rests /= rests.sum(dim=1, keepdim=True)
    weights = (rests / rests.sum(dim=0).clamp_min(1)) @ torch.tensor([share, 1 - share], dtype=torch.float64)
    return weights / weights.sum()


def _heat(logits: Tensor) -> Tensor:
    """Returns the factors `(K,)` that make all experts as sure as the first one."""
    entropy = mean_entropy(logits[0])
    return torch.tensor([1.0, *(match_entropy(other, entropy) for other in logits[1:])], dtype=torch.float64)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _hits(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(dim=1) == labels).sum())
