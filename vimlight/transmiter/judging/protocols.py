"""Protocols: which images are scored among which classes, and how the scores of the groups become one number.

A protocol's name stands beside every number, since one accuracy means little without the classes it covers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vimlight.errors import ConfigError
from vimlight.registry import Registry

__all__ = ["PROTOCOLS", "Group", "Protocol", "harmonic_mean", "resolve_partition"]


@dataclass(frozen=True)
class Group:
    """Images that are scored together.

    Attributes:
        name: What the group's scores are called, such as `"base"`.
        classes: Class indices; the group holds the images with these labels.
        columns: Class indices that a prediction is chosen from.
    """

    name: str
    classes: tuple[int, ...]
    columns: tuple[int, ...]


class Protocol(ABC):
    """One way to score; an instance has no state.

    Attributes:
        name: The protocol's name.
        text: What it does, in a few words for tables and reports.
        partitioned: Whether it needs the classes parted into base and novel ones.
        headline: What the one number is called that the groups' accuracies become.
        few_shot: Whether methods with labels get a few images of each class only.
    """

    name: ClassVar[str]
    text: ClassVar[str]
    partitioned: ClassVar[bool] = False
    headline: ClassVar[str] = "accuracy"
    few_shot: ClassVar[bool] = False

    @abstractmethod
    def groups(self, num_classes: int, partition: Mapping[str, Sequence[int]]) -> tuple[Group, ...]:
        """Returns the groups of images.

        Args:
            num_classes: Number of task classes C.
            partition: Class indices of `"base"` and `"novel"`, empty where the classes are not parted.
        """

    def known(self, num_classes: int, partition: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """Returns the classes that the source was tuned on; labels of others are kept from every method.

        Args:
            num_classes: Number of task classes C.
            partition: As for `groups`.
        """
        return tuple(partition["base"]) if self.partitioned else tuple(range(num_classes))

    def combine(self, accuracies: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
        """Returns all accuracies to report: those of the groups, and what they become.

        Args:
            accuracies: Accuracy of each group by its name.
            counts: Number of images of each group.
        """
        return dict(accuracies)


PROTOCOLS: Registry[type[Protocol]] = Registry("protocol", __name__, "PROTOCOLS")


@PROTOCOLS.register("base_to_base")
class BaseToBase(Protocol):
    """All images among all task classes; the source was tuned on all of them."""

    name = "base_to_base"
    text = "all images among all classes"

    def groups(self, num_classes: int, partition: Mapping[str, Sequence[int]]) -> tuple[Group, ...]:
        """Returns one group with everything."""
        everything = tuple(range(num_classes))
        return (Group("accuracy", everything, everything),)


@PROTOCOLS.register("base_to_novel")
class BaseToNovel(Protocol):
    """Base images among base classes, novel images among novel classes, and the harmonic mean of both."""

    name = "base_to_novel"
    text = "base images among base classes, novel images among novel classes"
    partitioned = True
    headline = "harmonic"

    def groups(self, num_classes: int, partition: Mapping[str, Sequence[int]]) -> tuple[Group, ...]:
        """Returns the groups `"base"` and `"novel"`, each among its own classes."""
        return tuple(Group(name, tuple(partition[name]), tuple(partition[name])) for name in ("base", "novel"))

    def combine(self, accuracies: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
        """Adds the harmonic mean."""
        return {**accuracies, "harmonic": harmonic_mean(accuracies["base"], accuracies["novel"])}


@PROTOCOLS.register("all_classes")
class AllClasses(BaseToNovel):
    """Base images and novel images, both among all classes: nobody says which kind an image is of."""

    name = "all_classes"
    text = "base images and novel images, both among all classes"

    def groups(self, num_classes: int, partition: Mapping[str, Sequence[int]]) -> tuple[Group, ...]:
        """Returns the groups `"base"` and `"novel"`, each among all classes."""
        everything = tuple(range(num_classes))
        return tuple(Group(name, tuple(partition[name]), everything) for name in ("base", "novel"))

    def combine(self, accuracies: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
        """Adds the harmonic mean, and the accuracy over all images."""
        right = sum(accuracies[name] * counts[name] for name in accuracies)
        return {**super().combine(accuracies, counts), "all": right / sum(counts.values())}


@PROTOCOLS.register("few_shot")
class FewShot(BaseToBase):
    """All images among all classes; methods with labels get a few images of each class."""

    name = "few_shot"
    text = "all images among all classes, a few labelled images of each to learn from"
    few_shot = True


@PROTOCOLS.register("cross_dataset")
class CrossDataset(BaseToBase):
    """All images among the classes of their own data set, for data sets that nothing was tuned on."""

    name = "cross_dataset"
    text = "all images among the classes of their data set, for data sets that nothing was tuned on"

    def known(self, num_classes: int, partition: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """Returns no class."""
        return ()


def harmonic_mean(first: float, second: float) -> float:
    """Returns the harmonic mean of two shares, 0 if either is 0."""
    return 2 * first * second / (first + second) if first > 0 and second > 0 else 0.0


def resolve_partition(
    protocol: Protocol, class_names: Sequence[str], stored: Mapping[str, Sequence[int]], base: Sequence[int] | None
) -> dict[str, list[int]]:
    """Returns the base and novel classes: given ones, or those that the cache's manifest defines.

    Args:
        protocol: The protocol.
        class_names: Names of the C task classes.
        stored: Class partitions of the cache's manifest.
        base: The base classes, if they are given; all others are novel.

    Returns:
        Ascending class indices of `"base"` and `"novel"`; nothing for a protocol that parts no classes.

    Raises:
        ConfigError: If the protocol needs a partition and there is none, or one of its halves is empty.
    """
    if not protocol.partitioned:
        if base is not None:
            raise ConfigError(f"protocol {protocol.name!r} has no base classes; leave out --base")
        return {}
    if base is None and "base" not in stored:
        raise ConfigError(
            f"protocol {protocol.name!r} needs the base classes: pass --base 0,1,2 or names; the target's cache "
            "defines no partition 'base'"
        )
    chosen = sorted(set(stored["base"] if base is None else base))
    rest = sorted(set(range(len(class_names))) - set(chosen))
    novel = sorted(set(stored.get("novel", rest))) if base is None else rest
    for name, half in (("base", chosen), ("novel", novel)):
        if not half:
            raise ConfigError(f"no class is left for {name!r}: {len(chosen)} of {len(class_names)} classes are base")
    if set(chosen) & set(novel):
        both = class_names[min(set(chosen) & set(novel))]
        raise ConfigError(f"class {both!r} is both base and novel in the cache's partitions; pass --base")
    return {"base": chosen, "novel": novel}
