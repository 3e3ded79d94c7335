"""Modules of the released layout as convpass plug-ins, and back, bit for bit.

A plug-in has one number of hidden units and trains in float32. Where the layout has several numbers in one module the
missing units are zeros, which change nothing; half precisions are widened. What was what stands in the module's card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vimlight.backbone import Backbone
from vimlight.errors import CheckpointError
from vimlight.interop.modelscope.layout import UNIT, places
from vimlight.plugins import Plugin

__all__ = ["module_tensors", "origin_of", "plugin_of"]

_KIND = "convpass"
_HALVES = (torch.float16, torch.bfloat16)


def plugin_of(module: Mapping[str, Mapping[str, Tensor]], backbone: Backbone) -> Plugin:
    """Builds the plug-in of a module, frozen and in eval mode.

    Args:
        module: Its tensors by place and released name.
        backbone: The backbone.
    """
    sites = [site for site in backbone.sites if site.name in module]
    hidden = max(_hidden(unit) for unit in module.values())
    with torch.random.fork_rng(devices=[]):
        plugin = Plugin(
            _KIND, sites, {"hidden": hidden}, backbone.fingerprint, backbone.name, backbone.preprocessing
        )
    for place, unit in module.items():
        plugin.unit(place).load_state_dict(
            {UNIT[name]: _widened(_resized(name, tensor, hidden)) for name, tensor in unit.items()}, assign=True
        )
    return plugin.requires_grad_(False).eval()


def origin_of(module: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Returns what a plug-in of a module does not say itself: numbers of hidden units and half precisions.

    Args:
        module: Its tensors by place and released name.
    """
    hidden = {place: _hidden(unit) for place, unit in module.items()}
    dtypes = {
        f"{place}.{name}": str(tensor.dtype).removeprefix("torch.")
        for place, unit in module.items()
        for name, tensor in unit.items()
        if tensor.dtype in _HALVES
    }
    return {**({"hidden": hidden} if len(set(hidden.values())) > 1 else {}), **({"dtypes": dtypes} if dtypes else {})}


def module_tensors(
    name: str, plugin: Plugin, depth: int, origin: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Tensor]]:
    """Returns the tensors of a module by place and released name, copied to the CPU.

    Args:
        name: The module's name, for messages.
        plugin: A convpass module; its scale goes into the up projection.
        depth: Number of the backbone's blocks.
        origin: What `origin_of` said when it was imported.

    Raises:
        CheckpointError: If it is of another type or sits elsewhere than beside attention and MLP.
    """
    if plugin.kind != _KIND:
        raise CheckpointError(f"module {name!r} is of type {plugin.kind!r}; the released layout holds {_KIND!r} alone")
    elsewhere = [site for site in plugin.site_names if site not in places(depth)]
    if elsewhere:
        raise CheckpointError(f"module {name!r} sits at {elsewhere[0]!r}, where the released layout has no place")
    hidden, dtypes = (dict((origin or {}).get(key, {})) for key in ("hidden", "dtypes"))
    module = {}
    for place in plugin.site_names:
        unit = _trimmed(_released(plugin, place), hidden.get(place))
        module[place] = {key: _narrowed(tensor, dtypes.get(f"{place}.{key}")) for key, tensor in unit.items()}
    return module


def _hidden(unit: Mapping[str, Tensor]) -> int:
    return len(unit["adapter_down.bias"])


def _released(plugin: Plugin, place: str) -> dict[str, Tensor]:
    state = plugin.unit(place).state_dict()
    scale = plugin.settings["scale"]
    scaled = {"up.weight", "up.bias"} if scale != 1.0 else set()
    tensors = {name: state[own] * scale if own in scaled else state[own] for name, own in UNIT.items()}
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALVES else tensor


def _narrowed(tensor: Tensor, dtype: str | None) -> Tensor:
    half = {str(half).removeprefix("torch."): half for half in _HALVES}.get(dtype or "")
    # What was trained since may need the wider type.
    return tensor.to(half) if half and torch.equal(tensor.to(half).to(tensor.dtype), tensor) else tensor


def _trimmed(unit: dict[str, Tensor], hidden: int | None) -> dict[str, Tensor]:
    """Takes away the hidden units that were filled in, unless they are zeros no longer."""
    full = _hidden(unit)
    if hidden is None or not 0 < hidden < full:
        return unit
    cut = {name: _resized(name, tensor, hidden) for name, tensor in unit.items()}
    same = all(torch.equal(_resized(name, tensor, full), unit[name]) for name, tensor in cut.items())
    return cut if same else unit


def _resized(name: str, tensor: Tensor, hidden: int) -> Tensor:
    """Cuts or fills with zeros the dimensions of a tensor that count hidden units."""
    counted = {
        "adapter_down.weight": (0,), "adapter_down.bias": (0,), "adapter_conv.weight": (0, 1),
        "adapter_conv.bias": (0,), "adapter_up.weight": (1,), "adapter_up.bias": (),
    }[name]  # fmt: skip
    for dim in counted:
        missing = hidden - tensor.shape[dim]
        tensor = F.pad(tensor, [0, 0] * (tensor.dim() - 1 - dim) + [0, missing])
    return tensor.contiguous()
