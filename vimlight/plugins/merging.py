"""Folding a plug-in into the backbone's own weights for inference, and taking it out again bit for bit."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from vimlight.backbone import Backbone
from vimlight.errors import PluginError
from vimlight.plugins.attach import check_fit
from vimlight.plugins.base import Plugin

__all__ = ["Merged", "merge"]


class Merged:
    """A plug-in folded into a backbone until `unmerge` is called or the context ends.

    Args:
        backbone: The backbone.
        plugin: A plug-in of a linear type.
    """

    def __init__(self, backbone: Backbone, plugin: Plugin) -> None:
        self._pristine: dict[nn.Module, tuple[Tensor, Tensor | None]] = {}
        layers = [backbone.model.get_submodule(site.output_module) for site in plugin.sites]
        # Copies come first and the fold second, so that a fold that fails leaves nothing changed.
        for layer in layers:
            bias = cast("Tensor | None", layer.bias)
            self._pristine[layer] = (cast(Tensor, layer.weight).clone(), None if bias is None else bias.clone())
        try:
            for site, layer in zip(plugin.sites, layers, strict=True):
                plugin.unit(site).fold(layer)
        except BaseException:
            self.unmerge()
            raise

    def __enter__(self) -> Merged:
        """Returns itself; the plug-in is merged already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the plug-in out again."""
        self.unmerge()

    def unmerge(self) -> None:
        """Restores the weights from their copies, bit for bit."""
        for layer, (weight, bias) in self._pristine.items():
            cast(Tensor, layer.weight).data = weight
            layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._pristine.clear()


def merge(backbone: Backbone, plugin: Plugin) -> Merged:
    """Folds a plug-in into the backbone's weights: the same outputs at the bare backbone's cost.

    Args:
        backbone: The backbone; its weights change until `unmerge`.
        plugin: A plug-in of a linear type (`lora`, `ssf`, `repadapter`).

    Raises:
        FingerprintError: If the plug-in was made for another backbone.
        PluginError: If the type cannot be merged.
    """
    check_fit(backbone, plugin)
    if any(not site.foldable for site in plugin.sites):
        raise PluginError(f"{plugin.kind!r} is not linear and cannot be merged into the backbone; use aggregate()")
    return Merged(backbone, plugin)
