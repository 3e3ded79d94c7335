"""What a method learns, and what it costs to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vimlight.backbone import Backbone
from vimlight.comparison.bench import Fitted
from vimlight.plugins import Plugin, attach

__all__ = ["added_by", "cost_of", "flops_of"]


@torch.no_grad()
def cost_of(fitted: Fitted, backbone: Backbone, bare: int) -> tuple[int, float]:
    """Returns how many numbers a method learns, its head included, and its FLOPs by those of the bare backbone.

    Args:
        fitted: The method.
        backbone: The bare backbone.
        bare: Its FLOPs of one image.
    """
    model = fitted.aggregator.to(next(backbone.parameters()).device)
    learnt = [fitted.head, *fitted.aggregator.trainable_modules().values()]
    parameters = {id(p): p.numel() for module in learnt for p in module.parameters()}
    tuned = {id(p): p.numel() for p in model.backbone.parameters() if p.requires_grad}
    return sum({**parameters, **tuned}.values()), flops_of(model, backbone) / bare


@torch.no_grad()
def added_by(plugins: Iterable[tuple[str, Plugin]], backbone: Backbone) -> dict[str, tuple[int, float]]:
    """Returns how many parameters each of some plug-ins has, and how many MFLOP it adds for an image.

    Args:
        plugins: The plug-ins, one at a time, with any name.
        backbone: Their backbone.
    """
    bare, found = flops_of(backbone, backbone), {}
    for name, plugin in plugins:
        with attach(backbone, plugin):
            added = flops_of(backbone, backbone) - bare
        found[name] = sum(parameter.numel() for parameter in plugin.parameters()), added / 1e6
    return found


@torch.no_grad()
def flops_of(model: Callable[[torch.Tensor], Any], backbone: Backbone) -> int:
    """Returns the FLOPs of a model of one image, of the size that its backbone takes."""
    device = next(backbone.parameters()).device
    image = torch.zeros(1, 3, *backbone.preprocessing.size, device=device)
    with FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())
