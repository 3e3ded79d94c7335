"""Equal shares: the mean of the modules, with nothing to learn."""

from __future__ import annotations

from torch import Tensor

from vimlight.aggregation.gated import StaticGates
from vimlight.aggregation.registry import AGGREGATORS

__all__ = ["Uniform"]


@AGGREGATORS.register("uniform")
class Uniform(StaticGates):
    """The mean of the modules at every place."""

    @property
    def gates(self) -> Tensor:
        """One over the number of modules at the place, `(places, K)`."""
        return self.present / self.present.sum(dim=1, keepdim=True)
