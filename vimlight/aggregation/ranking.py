"""What each module of a zoo, and the zoo as a whole, is worth for a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["BARE", "Ranking"]

BARE = "bare backbone"
# Gates smaller than this add nothing that a head could see.
_CLOSED = 0.01


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Leave-one-out errors of a closed-form head on the training images; less is better.

    Of a large zoo most modules are judged on some of the images, see `SuccessiveHalving`: an error on few images is
    larger, and is to be compared with that of the bare backbone on the same.

    Attributes:
        images: How many images were looked at.
        bare: The error without the zoo.
        modules: The error with each module alone, by its name.
        how: Name of the aggregator.
        aggregated: The error with the aggregated zoo after training; nothing before.
        judged_on: On how many images a module was judged, of those that were judged on fewer.
        bare_on: The error without the zoo on the first images, by their number.
        evidence: LogME of the bare backbone and of each module on the images that it was judged on, more is better;
            empty where nobody asked.
    """

    images: int
    bare: float
    modules: Mapping[str, float]
    how: str
    aggregated: float | None = None
    judged_on: Mapping[str, int] = dataclasses.field(default_factory=dict)
    bare_on: Mapping[int, float] = dataclasses.field(default_factory=dict)
    evidence: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def names(self) -> list[str]:
        """Returns the names of the modules, the best one first; who was judged on more images comes before others."""
        return sorted(self.modules, key=lambda name: (-self.images_of(name), self.modules[name]))

    def best(self) -> str:
        """Returns the name of the module with the smallest error, of those that were judged on all images."""
        return self.names()[0]

    def images_of(self, name: str) -> int:
        """Returns on how many images a module was judged."""
        return self.judged_on.get(name, self.images)

    def comparable(self, name: str) -> float:
        """Returns a module's error as it would be on all images if it kept its ratio to the bare backbone's."""
        bare = self._bare_beside(name)
        return self.modules[name] * (self.bare / bare if bare else 1.0)

    def order(self) -> str:
        """Returns one line with the modules, the best one first; of those judged on fewer images, how many they are."""
        whole = [name for name in self.names() if name not in self.judged_on]
        shown = ", ".join(f"{name} {self.modules[name]:.4f}" for name in whole)
        fewer = f", {len(self.judged_on)} more on fewer images" if self.judged_on else ""
        return f"modules by leave-one-out error on {self.images} images: {shown}{fewer}; {BARE} {self.bare:.4f}"

    def worth(self, gates: Tensor) -> str:
        """Returns one line that says what the zoo is worth, and whether the gates use it.

        Args:
            gates: The gates after training, `(places, K)`.
        """
        assert self.aggregated is not None
        best = self.best()
        text = (
            f"the zoo by leave-one-out error on {self.images} images: {BARE} {self.bare:.4f}, best single module "
            f"({best}) {self.modules[best]:.4f}, {self.how} {self.aggregated:.4f}"
        )
        if gates.numel() and float(gates.abs().max()) < _CLOSED:
            return f"{text}; the gates are closed: the zoo is not used"
        gain = 1 - self.aggregated / self.bare if self.bare > 0 else 0.0
        if gain <= 0:
            return f"{text}: here the zoo is worth nothing"
        return f"{text}: {gain:.1%} less than bare"

    def columns(self) -> list[str]:
        """Returns the names of the columns of `rows`."""
        return ["rank", "features", "left_out_error", "less_than_bare", "images"]

    def rows(self) -> list[list[Any]]:
        """Returns a row for the bare backbone, for each module and for the aggregated zoo, the best one first.

        What was judged on fewer images comes behind; it is compared with the bare backbone on the same images.
        """
        judged = [(name, error, self._bare_beside(name), self.images_of(name)) for name, error in self.modules.items()]
        whole = [] if self.aggregated is None else [(self.how, self.aggregated, self.bare, self.images)]
        everything = [(BARE, self.bare, self.bare, self.images), *judged, *whole]
        ranked = sorted(everything, key=lambda one: (-one[3], one[1]))
        return [
            [place, name, error, bare - error, images]
            for place, (name, error, bare, images) in enumerate(ranked, start=1)
        ]

    def scores(self) -> dict[str, float]:
        """Returns what loggers get: the errors of the bare backbone, the best module and the aggregated zoo."""
        found = {"zoo/bare": self.bare, "zoo/best_single": self.modules[self.best()]}
        return found if self.aggregated is None else {**found, "zoo/aggregated": self.aggregated}

    def as_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Ranking:
        """Returns what `as_dict` was made of.

        Raises:
            TypeError: If it was made of nothing of the kind.
        """
        made = cls(**fields)
        errors = [made.bare, made.aggregated or 0]
        errors += [*made.modules.values(), *made.bare_on.values(), *made.evidence.values()]
        numbers = [made.images, *made.judged_on.values(), *made.bare_on]
        if not all(isinstance(each, int | float) for each in (*numbers, *errors)) or not isinstance(made.how, str):
            raise TypeError("errors must be numbers, and the aggregator a name")
        if not made.judged_on.keys() <= made.modules.keys() or not set(made.judged_on.values()) <= set(made.bare_on):
            raise TypeError("modules that were judged on fewer images must be there, with the bare backbone's error")
        return made

    def _bare_beside(self, name: str) -> float:
        """Returns the bare backbone's error on the images that something was judged on."""
        return self.bare_on[self.judged_on[name]] if name in self.judged_on else self.bare
