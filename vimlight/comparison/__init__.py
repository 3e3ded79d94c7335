"""The honest comparison: a zoo trained on midstream tasks against every simpler way, at equal readout and equal head.

A `Plan` says which backbone, which midstream and downstream tasks, how many shots and seeds. `train_zoo` trains the zoo
and its controls, `compare` fits every method on every downstream task, and both go through the same `MidstreamModule`
and `DownstreamModule` that a user trains with. Nothing is chosen on test images but in the row that is called a bound.
"""

from __future__ import annotations

from vimlight.comparison.kinds import KindPlan, KindTask, score_all, train_modules
from vimlight.comparison.methods import Gates, compare
from vimlight.comparison.plan import BOUND, METHODS, VIM, Method, Plan, Task
from vimlight.comparison.zoos import ShuffledLabels, random_like, train_zoo

__all__ = [
    "BOUND",
    "METHODS",
    "VIM",
    "Gates",
    "KindPlan",
    "KindTask",
    "Method",
    "Plan",
    "ShuffledLabels",
    "Task",
    "compare",
    "random_like",
    "score_all",
    "train_modules",
    "train_zoo",
]
