"""What every kind of task defines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from vimlight.errors import ConfigError
from vimlight.registry import Registry

__all__ = ["TASKS", "Task", "create_task", "list_tasks"]


class Task(ABC):
    """Loss, metrics and predictions of one kind of task.

    Args:
        class_names: Names of the classes, in the order of the targets.

    Attributes:
        kind: The task's name in `TASKS`.
        monitor: The validation metric that checkpoints are chosen by.
        mode: Whether more of it is better (`"max"`) or less (`"min"`).
        class_names: Names of the classes.
    """

    kind: ClassVar[str]
    monitor: ClassVar[str]
    mode: ClassVar[str] = "max"

    def __init__(self, class_names: Sequence[str]) -> None:
        if len(class_names) < 2:
            raise ConfigError(f"a {self.kind} task needs at least 2 classes, got {list(class_names)}")
        self.class_names = tuple(class_names)

    @property
    def num_outputs(self) -> int:
        """How many numbers the head returns for an image."""
        return len(self.class_names)

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss, a scalar.

        Args:
            logits: `(N, C)`.
            targets: As the data gives them.
        """

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Turns logits `(N, C)` into probabilities of the same shape."""

    @abstractmethod
    def columns(self, targets: Tensor) -> Tensor:
        """Returns targets as `(N, C)` columns of 0 and 1, for heads in closed form."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Returns fresh metrics that take probabilities and targets."""

    @abstractmethod
    def confusion(self) -> Metric:
        """Returns a fresh metric that gathers the confusion of classes from probabilities and targets."""

    @abstractmethod
    def labels(self, probabilities: Tensor) -> list[str]:
        """Names what is predicted for each image, from probabilities `(N, C)`."""


TASKS: Registry[type[Task]] = Registry("task", "vimlight.tasks")


def create_task(kind: str, class_names: Sequence[str]) -> Task:
    """Creates a task.

    Args:
        kind: Name in `TASKS`.
        class_names: Names of the classes.

    Raises:
        UnknownNameError: If there is no such kind.
    """
    return TASKS[kind](class_names)


def list_tasks() -> list[str]:
    """Lists the kinds of tasks."""
    return list(TASKS)
