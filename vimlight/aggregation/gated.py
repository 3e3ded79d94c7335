"""Gated sums at every place in one pass through the backbone: the frame of `ens_moe`, `router` and `uniform`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.aggregation.base import Aggregate, Mixture
from vimlight.backbone import Backbone, Features, Site
from vimlight.errors import PluginError
from vimlight.plugins import Attachment, Plugin, Slot, Unit, WideUnit

__all__ = ["GatedAggregate", "PerImageGates", "StaticGates", "masked_softmax"]


@dataclasses.dataclass(frozen=True)
class Group:
    """The units of one type at one place.

    Attributes:
        place: Row of the gates.
        site: The site.
        unit_type: The units' class.
        owners: Which modules they belong to.
    """

    place: int
    site: Site
    unit_type: type[Unit]
    owners: tuple[int, ...]


class GatedAggregate(Aggregate):
    """Adds, at every place, a gated sum of the modules that have a unit there, in fused form.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        **common: See `Aggregate`.
    """

    present: Tensor

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        sites = {site.name: site for module in modules for site in module.sites}
        self._sites = sorted(
            sites.values(), key=lambda site: [known.name for known in backbone.all_sites].index(site.name)
        )
        present = [[site.name in module.site_names for module in modules] for site in self._sites]
        self.register_buffer("present", torch.tensor(present, dtype=torch.bool).reshape(len(present), len(modules)))
        self.join()

    @property
    def places(self) -> list[str]:
        """Names of the sites, the rows of `gates`."""
        return [site.name for site in self._sites]

    def join(self) -> None:
        """Builds the fused units from those that are present.

        Units of one type become one; where types differ, one that reads the output reads what the types before it left.
        """
        modules = self.modules_in_zoo
        self._groups: list[Group] = []
        wides: list[WideUnit] = []
        for place, site in enumerate(self._sites):
            for unit_type in dict.fromkeys(module.unit_type for module in modules):
                owners = [
                    k
                    for k, module in enumerate(modules)
                    if module.unit_type is unit_type and bool(self.present[place, k])
                ]
                if owners:
                    self._groups.append(Group(place, site, unit_type, tuple(owners)))
                    wides.append(unit_type.widen([modules[k].unit(site) for k in owners]))
        self.wides = nn.ModuleList(wides).requires_grad_(False).eval().to(self.present.device)

    def forward(self, images: Tensor) -> Features:
        """Computes features of images `(N, 3, H, W)` in one pass."""
        with Attachment(self.backbone, [*self.slots(), *self.extra_slots()]):
            features: Features = self.backbone(images, self.readout)
        return features

    def slots(self) -> list[Slot]:
        """Returns what is done at each place."""
        raise NotImplementedError(f"{type(self).__name__} defines no slots")

    def grouped(self) -> list[tuple[Group, WideUnit]]:
        """Returns the groups with their fused units."""
        return list(zip(self._groups, self.wides, strict=True))  # type: ignore[arg-type]  # all are wide units

    def train(self, mode: bool = True) -> GatedAggregate:
        """Keeps the zoo in eval mode; only the gating and the fresh plug-in follow `mode`."""
        super().train(mode)
        self.wides.eval()
        return self


class PerImageGates(GatedAggregate):
    """Gates that are given for each image of a batch: how several tasks share one pass.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        **common: See `Aggregate`.

    Attributes:
        given: The gates of the images of the next pass, `(N, places, K)`.
    """

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        self.given: Tensor | None = None

    def slots(self) -> list[Slot]:
        """Returns what is done at each place: the fused units with the images' gates.

        Raises:
            PluginError: If no gates were given.
        """
        if self.given is None:
            raise PluginError("the gates of the images must be given before the pass")
        return [
            Slot(
                group.site,
                group.unit_type.reads,
                group.unit_type.writes,
                partial(wide, gates=self.given[:, group.place, list(group.owners)]),
                own=True,
            )
            for group, wide in self.grouped()
        ]


class StaticGates(GatedAggregate):
    """Gates that do not depend on the image; a subclass defines `gates`."""

    def slots(self) -> list[Slot]:
        """Returns what is done at each place: the fused units with their rows of the gates."""
        gates = self.gates
        return [
            Slot(
                group.site,
                group.unit_type.reads,
                group.unit_type.writes,
                partial(wide, gates=gates[group.place, list(group.owners)]),
                own=True,
            )
            for group, wide in self.grouped()
        ]

    def without_zoo(self) -> StaticGates:
        """Returns a copy that has the same gates, and shares what is learned of them, but neither backbone nor zoo."""
        light = copy.copy(self)
        # Before anything else: until then both have one dictionary of parts.
        light._modules = {"gating": self.gating, "wides": nn.ModuleList(), "extra": None}
        light.modules_in_zoo, light._groups = (), []
        return light

    @torch.no_grad()
    def mixtures(self) -> list[Mixture]:
        """Returns the groups of units with their rows of the gates, and the fresh plug-in's units."""
        gates, modules = self.gates, self.modules_in_zoo
        found = [
            Mixture(
                group.site,
                tuple(modules[k].unit(group.site) for k in group.owners),
                gates[group.place, list(group.owners)],
            )
            for group, _ in self.grouped()
        ]
        return [*found, *self.extra_mixtures()]

    @torch.no_grad()
    def prune(self, threshold: float) -> float:
        """Drops, at each place, the modules whose gate is smaller than a threshold, and their cost with them.

        Where every gate is below it, the largest stays. The gates of the others are taken as they are or, where they
        are a softmax, share what was dropped. Checkpoints do not remember it.

        Args:
            threshold: Size of the smallest gate that is kept, whatever its sign.

        Returns:
            The largest share s of gates that was dropped at one place: what is added there changes by at most 2 s
            times the largest output of a module.
        """
        sizes = self.gates.abs()
        keep = (sizes >= threshold) | (sizes == sizes.amax(dim=1, keepdim=True))
        dropped = (sizes * ~keep).sum(dim=1) / sizes.sum(dim=1).clamp_min(1e-12)
        self.present &= keep
        self.join()
        return float(dropped.max())


def masked_softmax(logits: Tensor, present: Tensor, top_k: int | None = None) -> Tensor:
    """Softmax over the modules that are present, and of these over the k largest logits.

    Args:
        logits: `(..., K)`.
        present: Which modules count, boolean, broadcastable to `logits`.
        top_k: How many to keep; all if left out.

    Returns:
        Gates of the shape of `logits`, 0 where nothing is kept, with rows that sum to 1. Logits that equal the k-th
        largest are kept too, so that equal logits start equal.
    """
    masked = logits.masked_fill(~present, float("-inf"))
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = masked.topk(top_k, dim=-1).values[..., -1:]
        masked = masked.masked_fill(masked < smallest, float("-inf"))
    return masked.softmax(dim=-1)
