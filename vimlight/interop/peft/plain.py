"""Whether PEFT's adapters do on a plain timm model what a module does: layer by layer, tried out.

PEFT replaces layers by ones that add their change when they are called. Some models use the weights of a layer without
calling it, where such an adapter does nothing; and PEFT's change of a convolution has not all of its geometry. No list
of names knows them all, so the model is run once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.backbone import Backbone, Site
from vimlight.errors import CheckpointError, shown
from vimlight.interop.peft.factors import Factors
from vimlight.plugins.lora import Lora

__all__ = ["check_changes", "uncalled"]

_TOLERANCE = 1e-3


def uncalled(layers: Mapping[str, Factors], backbone: Backbone) -> list[str]:
    """Returns the layers that a plain timm model never calls, where PEFT's adapters do nothing.

    Args:
        layers: The layers' factors.
        backbone: The backbone.
    """
    inputs = _inputs(layers, backbone)
    return [layer for layer in layers if layer not in inputs]


def check_changes(layers: Mapping[str, Factors], sites: Mapping[str, Site], backbone: Backbone) -> None:
    """Checks that PEFT computes of the layers' inputs what a `lora` module does.

    Args:
        layers: The layers' factors; those that a plain timm model never calls are passed over.
        sites: The whole layers' sites by name.
        backbone: The backbone.

    Raises:
        CheckpointError: If it does not, such as of a dilated convolution.
    """
    for layer, x in _inputs(layers, backbone).items():
        module = backbone.model.get_submodule(layer)
        wanted = _by_module(layers[layer], sites[layer], x)
        try:
            same = _close(layers[layer].change(module, x), wanted)
        except RuntimeError:
            same = False
        if not same:
            raise CheckpointError(
                f"{shown(layer)} is {_kind(module)}, whose change PEFT computes otherwise than a lora module; leave it "
                "out"
            )


@torch.no_grad()
def _inputs(layers: Mapping[str, Factors], backbone: Backbone) -> dict[str, Tensor]:
    """Returns the inputs with which a plain timm model calls layers."""
    inputs: dict[str, Tensor] = {}

    def keep(layer: str, arguments: tuple[Any, ...]) -> None:
        inputs[layer] = arguments[0].float().cpu()

    first = next(backbone.parameters())
    images = torch.randn(1, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(0))
    with backbone.plain() as model:
        handles = [
            model.get_submodule(layer).register_forward_pre_hook(lambda _, found, layer=layer: keep(layer, found))
            for layer in layers
        ]
        try:
            model(images.to(first))
        finally:
            for handle in handles:
                handle.remove()
    return inputs


@torch.no_grad()
def _by_module(factors: Factors, site: Site, x: Tensor) -> Tensor:
    unit = Lora(site, rank=len(factors.down), bias=factors.bias is not None)
    parts = {"down": factors.down, "up": factors.up.flatten(1), "bias": factors.bias}
    unit.load_state_dict({name: part for name, part in parts.items() if part is not None})
    change: Tensor = unit(x)
    return change


def _close(found: Tensor, wanted: Tensor) -> bool:
    scale = wanted.abs().max().clamp_min(1e-6)
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= _TOLERANCE * scale)


def _kind(module: nn.Module) -> str:
    if not isinstance(module, nn.Conv2d):
        return f"a layer of type {type(module).__name__}"
    dilated = "a dilated" if tuple(module.dilation) != (1, 1) else "a"
    grouped = f" of {module.groups} groups" if module.groups > 1 else ""
    return f"{dilated} convolution{grouped}"
