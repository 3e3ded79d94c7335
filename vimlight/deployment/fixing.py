"""An aggregate whose gates no longer change: folded into the backbone where that is exact, fused elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vimlight.aggregation import Aggregate, Mixture
from vimlight.backbone import Backbone
from vimlight.plugins import Attachment, Slot, Unit

__all__ = ["Fixed", "fix"]


class Fixed(nn.Module):
    """One pass through a backbone with fixed additions.

    Args:
        backbone: The backbone.
        mixtures: What is added.
        readout: What is read out; see `Backbone.forward`.
        new_biases: Names of biases that the backbone did not have before modules were folded into it.

    Attributes:
        kinds: Type of the units of each addition.
        slots: What is added where.
    """

    def __init__(
        self, backbone: Backbone, mixtures: Sequence[Mixture], readout: str, new_biases: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.readout = readout
        self.new_biases = list(new_biases)
        self.kinds = [type(mixture.units[0]) for mixture in mixtures]
        paired = list(zip(self.kinds, mixtures, strict=True))
        self.additions = nn.ModuleList(kind.widen(mixture.units).fix(mixture.gates) for kind, mixture in paired)
        self.slots = [
            Slot(mixture.site, kind.reads, kind.writes, addition, own=True)
            for (kind, mixture), addition in zip(paired, self.additions, strict=True)
        ]

    def forward(self, images: Tensor) -> object:
        """Computes the features of images `(N, 3, H, W)`."""
        with Attachment(self.backbone, self.slots):
            return self.backbone(images, self.readout)


@torch.no_grad()
def fix(aggregator: Aggregate) -> nn.Module:
    """Fixes what is the same for every image; its backbone's weights are changed.

    Args:
        aggregator: An aggregator that owns its backbone.

    Returns:
        A module that computes the same features; the aggregator itself where its gates depend on the image or it takes
        several passes.
    """
    mixtures = aggregator.mixtures()
    if mixtures is None:
        return aggregator
    # The zoo's modules are no parts of an aggregator, and stay behind when it is moved.
    mixtures = [_moved(mixture, next(aggregator.backbone.parameters()).device) for mixture in mixtures]
    by_layer: dict[str, list[Mixture]] = {}
    for mixture in mixtures:
        by_layer.setdefault(mixture.site.output_module, []).append(mixture)
    folded = {name: found for name, found in by_layer.items() if _foldable(found)}
    model, new_biases = aggregator.backbone.model, []
    for name, found in folded.items():
        layer = model.get_submodule(name)
        had_bias = layer.bias is not None
        for mixture in found:
            _fold(layer, mixture)
        if layer.bias is not None and not had_bias:
            new_biases.append(f"{name}.bias")
    left = [mixture for mixture in mixtures if mixture.site.output_module not in folded]
    return Fixed(aggregator.backbone, left, aggregator.readout, new_biases)


def _moved(mixture: Mixture, device: torch.device) -> Mixture:
    return Mixture(mixture.site, tuple(unit.to(device) for unit in mixture.units), mixture.gates.to(device))


def _foldable(mixtures: Sequence[Mixture]) -> bool:
    """Tells whether a layer can absorb all that is added at it, one after the other."""
    kinds = [type(mixture.units[0]) for mixture in mixtures]
    if not all(mixture.site.foldable for mixture in mixtures) or any(kind.fold is Unit.fold for kind in kinds):
        return False
    # What changes the input and what reads it beside the layer do not fold in any one order.
    return not (any(kind.writes == "input" for kind in kinds) and any(_reads_beside(kind) for kind in kinds))


def _reads_beside(kind: type[Unit]) -> bool:
    return kind.writes == "output" and kind.reads != "output"


def _fold(layer: nn.Module, mixture: Mixture) -> None:
    """Adds the gated sum of what each unit alone would change of the layer, in double precision.

    A layer is affine in what a fold changes of it, so this is the gated sum of the units' outputs.
    """
    weight, bias = cast(Tensor, layer.weight), cast("Tensor | None", layer.bias)
    start = weight.double(), weight.new_zeros(1).double() if bias is None else bias.double()
    weight_change, bias_change = torch.zeros_like(start[0]), torch.zeros_like(start[1])
    has_bias = bias is not None
    for unit, gate in zip(mixture.units, mixture.gates.double(), strict=True):
        changed = copy.deepcopy(layer).double()
        copy.deepcopy(unit).double().fold(changed)
        weight_change = weight_change + gate * (cast(Tensor, changed.weight) - start[0])
        if changed.bias is not None:
            has_bias = True
            bias_change = bias_change + gate * (cast(Tensor, changed.bias) - start[1])
    layer.register_parameter("weight", _frozen(start[0] + weight_change, weight.dtype))
    if has_bias:
        layer.register_parameter("bias", _frozen(start[1] + bias_change, weight.dtype))


def _frozen(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype), requires_grad=False)
