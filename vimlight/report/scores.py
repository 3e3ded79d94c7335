"""How scores are read: whether more is better, and how they stand in tables."""

from __future__ import annotations

from collections.abc import Sequence

from vimlight.tasks import TASKS

__all__ = ["best_of", "goal_of", "is_share", "score_text"]

# Of names that no task is monitored by.
_ERRORS = ("loss", "error", "rmse", "mae", "rel", "log_loss")
_COUNTS = ("lr", "data_wait", "zoo", "gate")


def goal_of(name: str) -> str:
    """Returns `"max"` where more of a score is better, else `"min"`.

    Args:
        name: The score's name, with its split or without, such as `"val/accuracy"`.
    """
    metric = name.rpartition("/")[2]
    modes = {task.monitor: task.mode for task in TASKS.values()}
    if metric in modes:
        return modes[metric]
    return "min" if any(word in metric for word in _ERRORS) else "max"


def is_share(name: str) -> bool:
    """Tells whether a score is a share, which tables show as points of a hundred."""
    return goal_of(name) == "max" and not any(word in name for word in _COUNTS)


def best_of(name: str, values: Sequence[float]) -> float | None:
    """Returns the best of some values of a score; nothing of none."""
    numbers = [value for value in values if value == value]
    return (max if goal_of(name) == "max" else min)(numbers, default=None)


def score_text(name: str, value: float) -> str:
    """Returns a score in a few characters: a share as points of a hundred, anything else with four digits."""
    return f"{100 * value:.1f}" if is_share(name) and -1 <= value <= 1 else f"{value:.4g}"
