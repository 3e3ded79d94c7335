"""No zoo at all: the bare backbone, alone or with one fresh module, for the baselines of every comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from vimlight.aggregation.base import Aggregate, Mixture
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Features
from vimlight.plugins import Attachment, Plugin

__all__ = ["Bare"]


@AGGREGATORS.register("none")
class Bare(Aggregate):
    """The backbone's own features; the zoo's modules, if any are given, are left out."""

    needs_modules = False

    @property
    def places(self) -> list[str]:
        """No place is changed."""
        return []

    @property
    def gates(self) -> Tensor:
        """No gates, `(0, K)`."""
        return torch.zeros(0, len(self.names))

    def mixtures(self) -> list[Mixture]:
        """Returns the fresh plug-in's units."""
        return self.extra_mixtures()

    def attached(self) -> list[Plugin]:
        """Returns the fresh plug-in, if there is one."""
        return super().attached()[len(self.modules_in_zoo) :]

    def forward(self, images: Tensor) -> Features:
        """Computes features of images `(N, 3, H, W)`."""
        with Attachment(self.backbone, self.extra_slots()):
            features: Features = self.backbone(images, self.readout)
        return features
