"""What a method of the comparison is: it is fitted once, then turns batches of logits into refined task logits.

A method never meets the labels of the images it is scored on: what it is called with holds logits alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from vimlight.errors import VimlightError

if TYPE_CHECKING:
    from vimlight.transmiter.adapters.transmiter import Adapter
    from vimlight.transmiter.cache import LogitCache

__all__ = ["OPTIONS", "Candidates", "Fit", "Images", "Labelled", "Method", "Unsuitable", "prepare"]


class Unsuitable(VimlightError):
    """A method cannot work with what it is given; it is left out of the table, and the text says why."""


@dataclass(frozen=True)
class Images:
    """A batch of n images as the models see them; it knows no labels.

    Attributes:
        tensors: What the method reads, by role: `"target"`, `"source"`, `"source_tuned"` and `"target_tuned"` are task
            logits `(n, C)`, `"target_all"` all M logits of the target, `"target_features"` its features `(n, E)`.
        columns: Class indices that the prediction is chosen from.
    """

    tensors: Mapping[str, Tensor]
    columns: tuple[int, ...]

    def __getitem__(self, role: str) -> Tensor:
        """Returns the tensor of a role, float32."""
        return self.tensors[role]

    def __len__(self) -> int:
        """Returns the number of images n."""
        return len(next(iter(self.tensors.values())))


@dataclass(frozen=True)
class Candidates:
    """A group of images that is going to be scored, without its labels.

    Attributes:
        name: The group's name.
        columns: Class indices that predictions for it are chosen from.
        batches: Function that yields the images, a batch at a time, as often as it is called; it takes the roles to
            read, and how many images at most, spread evenly over the group, or none for all.
    """

    name: str
    columns: tuple[int, ...]
    batches: Callable[[Sequence[str], int | None], Iterator[Images]]


class Labelled:
    """Labelled images that a method may learn or choose from; none of them is scored.

    Args:
        labels: `(n,)` int64 class indices.
        read: Function of a role that returns its tensor for all n images; see `Images`.
        roles: The roles that can be read.

    Attributes:
        classes: Class indices that have images here, in ascending order.
        used: Whether the labels have been looked at.
    """

    def __init__(self, labels: Tensor, read: Callable[[str], Tensor], roles: frozenset[str]) -> None:
        self._labels = labels
        self.read = read
        self.roles = roles
        self.classes: tuple[int, ...] = tuple(labels.unique().tolist())
        self.used = False

    def __len__(self) -> int:
        """Returns the number of images n."""
        return len(self._labels)

    @property
    def labels(self) -> Tensor:
        """Class indices `(n,)` int64; whoever looks at them is noted."""
        self.used = True
        return self._labels

    def unused(self) -> Labelled:
        """Returns the same images, for a method that has not looked yet."""
        return Labelled(self._labels, self.read, self.roles)

    def images(self, roles: Sequence[str], columns: Sequence[int]) -> Images:
        """Returns all images as a method is called with them.

        Args:
            roles: What to read.
            columns: Class indices that predictions are chosen from.
        """
        return Images({role: self.read(role) for role in roles}, tuple(columns))


@dataclass(frozen=True)
class Fit:
    """What a method may look at before it is scored.

    Attributes:
        class_names: Names of the C task classes.
        known: Class indices that the source was tuned on; labels come from these alone.
        roles: What can be read of the images that are going to be scored; see `Images`.
        column_names: Names of all M columns of the target, task classes first.
        groups: The groups that are going to be scored, without labels.
        caches: Caches of training images by role (`"target_train"`, `"source_train"`, `"source_tuned_train"`).
        adapters: Adapters by role (`"adapter"`, `"gap_ridge"`, `"adapter_unmoved"`, ...).
        train: Labelled training images, if there are any.
        val: Labelled validation images, if there are any.
        scale: The factor between cosines and logits of the target, none for bare logits.
        device: Where the method computes.
    """

    class_names: tuple[str, ...]
    column_names: tuple[str, ...]
    known: tuple[int, ...]
    roles: frozenset[str]
    groups: tuple[Candidates, ...]
    caches: Mapping[str, LogitCache] = field(default_factory=dict)
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    train: Labelled | None = None
    val: Labelled | None = None
    scale: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def given(self) -> frozenset[str]:
        """Everything that is there, by role."""
        labelled = {"train_labels"} if self.train is not None else set()
        return self.roles | set(self.caches) | set(self.adapters) | labelled

    def for_method(self, method: Method) -> Fit:
        """Returns what one method may look at: labelled images only if it says that it uses labels."""
        if not method.uses_labels:
            return replace(self, train=None, val=None)
        return replace(self, train=self.train and self.train.unused(), val=self.val and self.val.unused())

    @property
    def labels_used(self) -> bool:
        """Whether labels have been looked at."""
        return any(found is not None and found.used for found in (self.train, self.val))

    def validation(self, roles: Sequence[str]) -> Labelled | None:
        """Returns the validation images if something can be chosen on them: those of the classes with labels.

        What suits these need not suit other classes; but no label speaks of others, and a default speaks of neither.

        Args:
            roles: What has to be read of them.
        """
        if self.val is None or not set(roles) <= self.val.roles or len(self.val.classes) < 2:
            return None
        return self.val


class Method(ABC):
    """One way to classify images from cached logits.

    Attributes:
        title: What the method is called in tables.
        place: Where it stands in tables; small numbers come first.
        reads: Roles of what it reads for each image; see `Images`.
        needs: What it needs besides: roles of caches and adapters, or `"train_labels"`.
        uses_labels: Whether it may learn or choose from labelled images.
        made_with_labels: Whether labels went into what it reads or loads, beyond those that tuned the source.
    """

    title: ClassVar[str]
    place: ClassVar[int] = 50
    reads: tuple[str, ...] = ("target",)
    needs: tuple[str, ...] = ()
    uses_labels: ClassVar[bool] = False
    made_with_labels: ClassVar[bool] = False

    def fit(self, data: Fit) -> None:  # noqa: B027  # most methods have nothing to prepare
        """Prepares the method.

        Args:
            data: What it may look at.

        Raises:
            Unsuitable: If it cannot work with these caches; it is left out then.
        """

    @abstractmethod
    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""

    def choices(self) -> dict[str, Any]:
        """Returns what was chosen, and on which data, as plain values."""
        return {}

    def num_parameters(self) -> int:
        """Returns how many numbers the method keeps beside the models."""
        return 0


def prepare(method: Method, data: Fit) -> None:
    """Checks that a method has what it needs, and fits it.

    Args:
        method: The method.
        data: What it may look at.

    Raises:
        Unsuitable: If something is missing or does not suit the method.
    """
    missing = [role for role in (*method.reads, *method.needs) if role not in data.given]
    if missing:
        raise Unsuitable(f"needs {', '.join(dict.fromkeys(OPTIONS.get(role, role) for role in missing))}")
    method.fit(data)


OPTIONS = {
    "target": "--target",
    "target_all": "--target",
    "target_features": "a --target cache with features",
    "target_tuned": "--target-tuned",
    "source": "--source",
    "source_tuned": "--source-tuned",
    "target_train": "--target-train",
    "source_train": "--source-train",
    "source_tuned_train": "--source-tuned-train",
    "train_labels": "labelled images in --target-train",
    "adapter": "--adapter",
    "adapter_unmoved": "--adapter-unmoved",
    "adapter_no_aux": "--adapter-no-aux",
    "adapter_published": "--adapter-published",
    "adapter_plus": "--adapter-plus",
}
