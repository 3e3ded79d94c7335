"""The two controls of a zoo: what labels teach, and what weights are worth beside their number."""

from __future__ import annotations

import copy
import dataclasses
from functools import cached_property

import torch

from vimlight.data import MidstreamDataModule, Source
from vimlight.data.target_rows import pick
from vimlight.plugins import Plugin

__all__ = ["ShuffledLabels", "random_like"]


def random_like(plugin: Plugin, seed: int) -> Plugin:
    """Returns a module of the same shape with random weights.

    Each tensor is normal, with the root mean square of the trained one.

    Args:
        plugin: The trained module.
        seed: Decides the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    twin = Plugin(
        plugin.kind, plugin.sites, plugin.settings, plugin.fingerprint, plugin.backbone_name, plugin.preprocessing
    )
    with torch.no_grad():
        for random, trained in zip(twin.parameters(), plugin.parameters(), strict=True):
            random.copy_(torch.randn(trained.shape, generator=generator) * trained.square().mean().sqrt().cpu())
    return twin


class ShuffledLabels(MidstreamDataModule):
    """A midstream data set whose training labels are dealt out at random: the control for what labels teach."""

    @cached_property
    def source(self) -> Source:
        """The data set with shuffled labels."""
        source = super().source
        order = torch.randperm(len(source.train), generator=torch.Generator().manual_seed(self.seed))
        train = copy.copy(source.train)
        train.targets = pick(source.train.targets, order)
        return dataclasses.replace(source, train=train)
