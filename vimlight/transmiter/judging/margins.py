"""The promise, with its noise: how far a method is below the better of target zero-shot and fine-tuned source.

A group of images breaks it where the method's accuracy is more than half a point below that of the better of the two,
and an exact McNemar test of the two on these images says so.
"""

from __future__ import annotations

import dataclasses

import torch
from scipy.stats import binomtest
from torch import Tensor

from vimlight.transmiter.judging.evaluation import Evaluation, Result
from vimlight.transmiter.judging.methods.safe import PROMISED

__all__ = ["Margin", "margins", "mcnemar"]

_SLACK = 0.005


@dataclasses.dataclass(frozen=True)
class Margin:
    """How far a method is from the better of the two models.

    Attributes:
        difference: Its accuracy less the better one's.
        p: Probability of a difference as large between equals; exact.
    """

    difference: float
    p: float

    def broken(self, level: float = 0.05) -> bool:
        """Tells whether the promise is broken, noise taken off: by more than half a point, and significantly.

        Args:
            level: Of significance.
        """
        return self.difference < -_SLACK and self.p < level


def mcnemar(first: Tensor, second: Tensor) -> float:
    """Returns the two-sided p-value of the exact McNemar test: of images that one alone has right, half are each one's.

    Args:
        first: `(n,)` bool, whether the one is right.
        second: The same of the other.
    """
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def margins(evaluation: Evaluation) -> dict[str, dict[str, Margin]]:
    """Returns the margins of each method on each group of images.

    Args:
        evaluation: Results, those of both models of the promise among them. Images that are all told from all classes
            are one group, `"all"`.
    """
    right = {name: _right(evaluation, result) for name, result in evaluation.results.items()}
    found: dict[str, dict[str, Margin]] = {name: {} for name in right}
    for group in right[PROMISED[0]]:
        better = max((right[model][group] for model in PROMISED), key=lambda answers: float(answers.double().mean()))
        for name, answers in right.items():
            difference = float(answers[group].double().mean() - better.double().mean())
            found[name][group] = Margin(difference, mcnemar(answers[group], better))
    return found


def _right(evaluation: Evaluation, result: Result) -> dict[str, Tensor]:
    found = {group: said == evaluation.labels[group] for group, said in result.predictions.items()}
    together = len({group.columns for group in evaluation.groups}) == 1
    return {"all": torch.cat(list(found.values()))} if together else found
