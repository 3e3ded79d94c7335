"""Weights averaged into one module: the cost of a single module, whatever the size of the zoo."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vimlight.aggregation.base import Aggregate, Mixture, SoftmaxLogits
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Backbone, Features
from vimlight.plugins import Attachment, Plugin, Slot, Unit
from vimlight.plugins.averaging import require_equal

__all__ = ["Merge"]


@AGGREGATORS.register("merge")
class Merge(Aggregate):
    """One module with the weights `sum_i a_i theta_i`, a = softmax of one learned logit per module and place.

    Not the sum of the modules' outputs: hidden units of modules that were trained apart do not correspond. All modules
    must be of one type and setting, at the same sites.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        **common: See `Aggregate`.
    """

    gating: SoftmaxLogits

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        require_equal(modules, self.names, "merge")
        self._sites, self._kind = modules[0].sites, modules[0].unit_type
        self._stacks = nn.ModuleList(
            _Stack([module.unit(site) for module in self.modules_in_zoo]) for site in self._sites
        )
        self.gating = SoftmaxLogits(len(self._sites), len(modules))

    @property
    def places(self) -> list[str]:
        """Names of the sites, the rows of `gates`."""
        return [site.name for site in self._sites]

    @property
    def gates(self) -> Tensor:
        """The gates `(places, K)`; each row sums to 1."""
        return self.gating.shares()

    def start_from(self, scores: Tensor) -> None:
        """Sets every row of the logits to the scores.

        Args:
            scores: `(K,)`.
        """
        self.gating.start_from(scores)

    def mixtures(self) -> list[Mixture]:
        """Returns the merged units, each alone, and the fresh plug-in's."""
        one = torch.ones(1, device=self.gates.device)
        stacks = cast("list[_Stack]", list(self._stacks))
        rows = zip(self._sites, stacks, self.gates, strict=True)
        merged = [Mixture(site, (stack.unit(row),), one) for site, stack, row in rows]
        return [*merged, *self.extra_mixtures()]

    def forward(self, images: Tensor) -> Features:
        """Computes features of images `(N, 3, H, W)` with the merged module."""
        reads, writes = self._kind.reads, self._kind.writes
        rows = zip(self._sites, self._stacks, self.gates, strict=True)
        slots = [Slot(site, reads, writes, partial(stack, gates=row)) for site, stack, row in rows]
        with Attachment(self.backbone, [*slots, *self.extra_slots()]):
            features: Features = self.backbone(images, self.readout)
        return features


class _Stack(nn.Module):
    """The parameters of K units, stacked; runs one unit with their weighted sum."""

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__()
        # In a tuple, so that the template's parameters are no part of this module.
        self._template = (units[0],)
        self._names = [name for name, _ in units[0].named_parameters()]
        for index, name in enumerate(self._names):
            self.register_buffer(f"stack{index}", torch.stack([unit.get_parameter(name).detach() for unit in units]))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        output: Tensor = functional_call(self._template[0], self._weights(gates), (x,))
        return output

    @torch.no_grad()
    def unit(self, gates: Tensor) -> Unit:
        """Returns one unit with the weighted sum of the parameters.

        Args:
            gates: `(K,)`.
        """
        unit = copy.deepcopy(self._template[0])
        unit.load_state_dict(self._weights(gates))
        return unit

    def _weights(self, gates: Tensor) -> dict[str, Tensor]:
        stacks = [self.get_buffer(f"stack{index}") for index in range(len(self._names))]
        return {name: torch.tensordot(gates, stack, 1) for name, stack in zip(self._names, stacks, strict=True)}
