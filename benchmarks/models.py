"""What several benchmarks run: a backbone, images for it, and modules that are not at their start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.bench import Bench
from vimlight.backbone import Backbone, create_backbone
from vimlight.plugins import Plugin, create_plugin

__all__ = ["backbone_for", "images_for", "modules_for"]


def backbone_for(bench: Bench, name: str) -> Backbone:
    """Creates a backbone with random weights: what they are changes no time."""
    return create_backbone(name).to(bench.device)


def images_for(backbone: Backbone, batch: int) -> Tensor:
    """Draws images `(batch, 3, H, W)`."""
    device = next(backbone.parameters()).device
    return torch.randn(batch, 3, *backbone.preprocessing.size, device=device)


def modules_for(backbone: Backbone, count: int, kind: str, **settings: Any) -> list[Plugin]:
    """Creates modules and moves them away from their start, at which they add zero."""
    return [_shaken(create_plugin(kind, backbone, **settings)) for _ in range(count)]


@torch.no_grad()
def _shaken(plugin: Plugin) -> Plugin:
    for parameter in plugin.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return plugin.requires_grad_(False).eval()
