"""What a method learns, and what it costs to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vimlight.backbone import Backbone
from vimlight.comparison.bench import Fitted

__all__ = ["cost_of"]


@torch.no_grad()
def cost_of(fitted: Fitted, backbone: Backbone) -> tuple[int, float]:
    """Returns how many numbers a method learns, its head included, and its FLOPs by those of the bare backbone.

    Args:
        fitted: The method.
        backbone: The bare backbone.
    """
    device = next(backbone.parameters()).device
    image = torch.zeros(1, 3, *backbone.preprocessing.size, device=device)
    model = fitted.aggregator.to(device)
    learnt = [fitted.head, *fitted.aggregator.trainable_modules().values()]
    parameters = {id(p): p.numel() for module in learnt for p in module.parameters()}
    tuned = {id(p): p.numel() for p in model.backbone.parameters() if p.requires_grad}
    return sum({**parameters, **tuned}.values()), _flops(model, image) / _flops(backbone, image)


def _flops(model: Callable[[torch.Tensor], Any], image: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())
