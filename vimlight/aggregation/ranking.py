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

    Attributes:
        images: How many images were looked at.
        bare: The error without the zoo.
        modules: The error with each module alone, by its name.
        how: Name of the aggregator.
        aggregated: The error with the aggregated zoo after training; nothing before.
    """

    images: int
    bare: float
    modules: Mapping[str, float]
    how: str
    aggregated: float | None = None

    def best(self) -> str:
        """Returns the name of the module with the smallest error."""
        return min(self.modules, key=lambda name: self.modules[name])

    def order(self) -> str:
        """Returns one line with all modules, the best one first."""
        ranked = sorted(self.modules.items(), key=lambda item: item[1])
        shown = ", ".join(f"{name} {error:.4f}" for name, error in ranked)
        return f"modules by leave-one-out error on {self.images} images: {shown}; {BARE} {self.bare:.4f}"

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
        return ["rank", "features", "left_out_error", "less_than_bare"]

    def rows(self) -> list[list[Any]]:
        """Returns a row for the bare backbone, for each module and for the aggregated zoo, the best one first."""
        whole = {} if self.aggregated is None else {self.how: self.aggregated}
        everything = [(BARE, self.bare), *self.modules.items(), *whole.items()]
        ranked = sorted(everything, key=lambda item: item[1])
        return [[place, name, error, self.bare - error] for place, (name, error) in enumerate(ranked, start=1)]

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
        errors = [made.bare, *made.modules.values(), made.aggregated or 0]
        if not all(isinstance(each, int | float) for each in (made.images, *errors)) or not isinstance(made.how, str):
            raise TypeError("errors must be numbers, and the aggregator a name")
        return made
