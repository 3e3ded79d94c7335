"""What every kind of task defines: the contract between data, backbone, training and reports.

A new kind is one new file in this folder with a `Task` subclass under `@TASKS.register(kind)`; training, checkpoints,
few-shot sampling, augmentation, reports and predictions take it from there. It says

* what its targets look like: `layout`, a `TargetLayout` (see `vimlight.tasks.targets`; a new one may stand in the
  same file). A data source gives `Source(name, kind, class_names, train, ...)` whose tables hold such targets: a
  tensor, or any sequence that reads one target at a time. The layout collates them and moves them with their images;
* what its head reads: `reads = "vector"` for features `(N, D)`, `"maps"` for a list of maps `(N, C, H, W)`; and the
  head itself: `create_head(shapes)`, where `shapes` are those of one image's features. Keyword-only arguments of the
  subclass's `__init__` are settings, which a config gives as `task: {kind: ..., setting: ...}`;
* `loss(outputs, targets)` of what the head returns, of any type, over how many `terms(targets)` that is the mean, and
  `predictions(outputs, size)`, a batch of what is predicted (one row or entry an image, in pixels of the model's
  input), which `metrics()` take with the targets;
* whether an affine head can be fitted in closed form: `columns(targets)`, or for maps `examples(features, targets,
  images)`. Then the gates of a zoo start from a ranking of its modules and, if `closed_form`, the head is solved;
* how predictions are written: `table(predictions)`, values for the row of each image (`rows`, where an image has
  several or none), and where one prediction is a file of its own `file(prediction, size)`; and how they are shown:
  `labels`, `truth`, `draw`, `confusion`, `reliability`, `precision_recall`.

Batches are dictionaries: `"image"` `(N, 3, H, W)`, `"target"`, `"id"`, and `"size"` `(N, 2)`, height and width of the
images as they were before they became the input.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from vimlight.errors import ConfigError, shown, unknown_name
from vimlight.tasks.averages import ClassesSeen
from vimlight.tasks.closed_form import Examples
from vimlight.tasks.heads import AffineHead
from vimlight.tasks.registry import TASKS
from vimlight.tasks.targets import LABELS, Batched, TargetLayout

__all__ = ["Task", "create_task", "list_tasks"]

Shapes = Sequence[tuple[int, ...]]
Features = Any
"""Vectors `(N, D)`, or a list of maps `(N, C, H, W)`."""


class Task(ABC):
    """Head, loss, metrics and predictions of one kind of task; see the module's text.

    Args:
        class_names: Names of the classes, in the order of the targets; of the numbers, where targets are numbers.

    Attributes:
        kind: The task's name in `TASKS`.
        monitor: The validation metric that checkpoints are chosen by.
        mode: Whether more of it is better (`"max"`) or less (`"min"`).
        reads: What the head reads, `"vector"` or `"maps"`.
        layout: What its targets look like.
        fewest_classes: How many class names it needs at least.
        measure_training: Whether metrics are computed on training batches too; the loss always is.
        class_names: Names of the classes.
    """

    kind: ClassVar[str]
    monitor: ClassVar[str]
    mode: ClassVar[str] = "max"
    reads: ClassVar[str] = "vector"
    layout: ClassVar[TargetLayout] = LABELS
    fewest_classes: ClassVar[int] = 2
    measure_training: ClassVar[bool] = True

    def __init__(self, class_names: Sequence[str] = ()) -> None:
        few = self.fewest_classes
        if len(class_names) < few:
            noun = "class" if few == 1 else "classes"
            raise ConfigError(f"a {self.kind} task needs at least {few} {noun}, got {list(class_names)}")
        self.class_names = tuple(class_names)

    @property
    def num_outputs(self) -> int:
        """How many numbers the head returns for an image, or for a position of it."""
        return len(self.class_names)

    def create_head(self, shapes: Shapes) -> nn.Module:
        """Creates the head.

        Args:
            shapes: `[(D,)]` for vectors, `(C, H, W)` of each map, finest first, for maps.

        Returns:
            A module from features to outputs. If it has a method `start(features, targets)`, that is called once before
            the first step with features and targets of some training images.
        """
        return AffineHead(shapes[0][0], self.num_outputs)

    def prepare(self, targets: Any) -> None:  # noqa: B027  (most kinds need nothing)
        """Learns what loss or metrics need of all training targets, such as their spread; by default nothing.

        It is called before every stage, so that it need not be saved.

        Args:
            targets: The training table's: a tensor or a sequence.
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Batched) -> Tensor:
        """Returns the mean loss, a scalar.

        Args:
            outputs: What the head returned.
            targets: A batch of targets, see `layout`.
        """

    def terms(self, targets: Batched) -> int | Tensor:
        """Returns how many terms `loss` is the mean of; by default one an image.

        They weigh the losses of batches in their mean, so that it does not depend on the sizes of batches.

        Args:
            targets: A batch of targets.
        """
        return len(targets)

    @abstractmethod
    def predictions(self, outputs: Any, size: tuple[int, int] = (0, 0)) -> Batched:
        """Turns outputs into predictions, one row or entry an image.

        Args:
            outputs: What the head returned.
            size: Height and width of the model's input, for what lies in the image.
        """

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Returns fresh metrics that take predictions and targets; of what they compute, scalars are logged.

        Means over classes are over those that occur (see `vimlight.tasks.averages`), and a batch may have no images:
        that of a process which no images are left for.
        """

    def scores(self) -> MetricCollection:
        """Returns fresh `metrics` and, where targets have classes, `classes_seen`: how many of them occur."""
        found = self.metrics()
        if self.class_names and type(self.layout).classes is not TargetLayout.classes:
            found.add_metrics({"classes_seen": ClassesSeen(self.layout, len(self.class_names))})
        return found

    def confusion(self) -> Metric | None:
        """Returns a fresh metric that gathers the confusion of classes from predictions and targets, if there is one.

        Its value is `(C, C)`, rows the true classes, or `(C, 2, 2)`.
        """
        return None

    def reliability(self) -> Metric | None:
        """Returns a fresh metric that gathers how far confidence can be trusted, if predictions have one.

        Its value is `(bins, 3)`: images, mean confidence and share of right answers.
        """
        return None

    def precision_recall(self) -> Metric | None:
        """Returns a fresh metric that gathers precision over recall of each class, if predictions have probabilities.

        Its value is `(C, points, 2)`: recall, which falls, and precision. Both are NaN for a class that no image has,
        and precision where nothing is named.
        """
        return None

    @property
    def closed_form(self) -> bool:
        """Whether the task's head is affine in its `examples` and can be solved."""
        return type(self).columns is not Task.columns

    @property
    def ranks(self) -> bool:
        """Whether there are `examples` to rank the modules of a zoo by."""
        return self.closed_form

    def columns(self, targets: Batched) -> Tensor:
        """Returns targets as `(N, C)` numbers that an affine map of vectors can be fitted to.

        Raises:
            ConfigError: If the task has no such form.
        """
        raise ConfigError(f"a {self.kind} task has no head in closed form")

    def examples(self, features: Features, targets: Batched, images: int) -> Examples:
        """Returns what heads in closed form and rankings of modules are fitted to.

        Args:
            features: Vectors, or maps.
            targets: Their targets.
            images: From how many images examples will be put together in all; of many, a task of maps takes few
                positions each.
        """
        return Examples(features, self.columns(targets), torch.arange(len(features), device=features.device))

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Returns how scores from a closed form become outputs: `factor * (scores - middle)`.

        Args:
            left_out: Scores of each example from the fit without it, `(M, C)`.
            columns: What they were fitted to, `(M, C)`.

        Returns:
            Factor and middle, one for all or one for each column; 1 and 0 where outputs are what was fitted.
        """
        return 1.0, 0.0

    def table(self, predictions: Batched) -> Mapping[str, Sequence[Any]]:
        """Returns what the rows of a predictions file say: texts or numbers for each image, by the column's name.

        By default that is the column `label`, with the words of `labels`.

        Args:
            predictions: A batch of predictions.
        """
        return {"label": self.labels(predictions)}

    def rows(
        self, ids: Sequence[str], predictions: Batched, sizes: Sequence[tuple[int, int]]
    ) -> list[list[dict[str, Any]]]:
        """Returns the rows of a predictions file, for each image: by default one, with the columns of `table`.

        Args:
            ids: The images' ids.
            predictions: A batch of predictions.
            sizes: Height and width of the images before they became the input.
        """
        columns = {"id": list(ids), **self.table(predictions)}
        return [[dict(zip(columns, row, strict=True))] for row in zip(*columns.values(), strict=True)]

    def file(self, prediction: Any, size: tuple[int, int]) -> tuple[str, bytes] | None:
        """Returns suffix and content of one prediction's own file, or nothing where the table says all.

        Args:
            prediction: One image's row or entry of `predictions`.
            size: Height and width of the image before it became the input.
        """
        return None

    def labels(self, predictions: Batched) -> list[str]:
        """Says in a few words what is predicted for each image; by default nothing."""
        return [""] * len(predictions)

    def truth(self, targets: Batched) -> list[str]:
        """Says the targets as `labels` says predictions; by default nothing."""
        return [""] * len(targets)

    def sureness(self, predictions: Batched) -> list[float] | None:
        """Returns how probable each prediction is said to be, if that is known."""
        return None

    def draw(self, image: NDArray[np.uint8], item: Any) -> NDArray[np.uint8] | None:
        """Draws one target or prediction into its image, or nothing where words say it.

        Args:
            image: The input, `(H, W, 3)`.
            item: One row or entry of a batch of targets or of predictions.
        """
        return None

    def colours(self) -> dict[str, tuple[int, int, int]]:
        """Returns what the colours of `draw` stand for, each of red, green and blue up to 255; by default nothing."""
        return {}


def create_task(task: str | Mapping[str, Any], class_names: Sequence[str] = ()) -> Task:
    """Creates a task.

    Args:
        task: Name in `TASKS`, or that name as `kind` together with settings of the task.
        class_names: Names of the classes.

    Raises:
        UnknownNameError: If there is no such kind or setting.
        ConfigError: If the settings lack the kind, or there are too few classes.
    """
    settings = {"kind": task} if isinstance(task, str) else dict(task)
    if "kind" not in settings:
        raise ConfigError(f"the task's settings {shown(settings)} lack 'kind', its name")
    kind = settings.pop("kind")
    factory = TASKS[kind]
    valid = [p.name for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in settings:
        if name not in valid:
            raise unknown_name(f"setting of task {kind!r}", name, valid)
    return factory(class_names, **settings)


def list_tasks() -> list[str]:
    """Lists the kinds of tasks."""
    return list(TASKS)
