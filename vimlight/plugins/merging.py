"""Folding a plug-in into the backbone's own weights for inference, and taking it out again bit for bit."""

from __future__ import annotations

from typing import TypeAlias, cast

from torch import nn

from vimlight.backbone import Backbone
from vimlight.errors import PluginError
from vimlight.plugins.attachment import check_fit
from vimlight.plugins.base import Plugin

__all__ = ["Merged", "merge"]

_Parameters: TypeAlias = "tuple[nn.Parameter, nn.Parameter | None]"


class Merged:
    """A plug-in folded into a backbone until `unmerge` is called or the context ends.

    Args:
        backbone: The backbone.
        plugin: A plug-in of a linear type.
    """

    def __init__(self, backbone: Backbone, plugin: Plugin) -> None:
        layers = [backbone.model.get_submodule(site.output_module) for site in plugin.sites]
        self._pristine = {layer: _parameters(layer) for layer in layers}
        # The folds change copies, so that a fold that fails leaves nothing changed.
        self._folded = {layer: _copies(parameters) for layer, parameters in self._pristine.items()}
        self._put(self._folded)
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
        """Puts the backbone's own parameters back.

        Raises:
            PluginError: If another plug-in was merged into the same layers later and is there still.
        """
        if any(layer.weight is not weight for layer, (weight, _) in self._folded.items()):
            raise PluginError("another plug-in was merged later into the same layers; unmerge that one first")
        self._put(self._pristine)
        self._pristine, self._folded = {}, {}

    @staticmethod
    def _put(parameters: dict[nn.Module, _Parameters]) -> None:
        for layer, (weight, bias) in parameters.items():
            layer.register_parameter("weight", weight)
            layer.register_parameter("bias", bias)


def _parameters(layer: nn.Module) -> _Parameters:
    return cast(nn.Parameter, layer.weight), cast("nn.Parameter | None", layer.bias)


def _copies(parameters: _Parameters) -> _Parameters:
    weight, bias = parameters
    return _copy(weight), None if bias is None else _copy(bias)


def _copy(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=False)


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
