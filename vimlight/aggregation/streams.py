"""One pass through the backbone for each module: the upper bound in cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.aggregation.base import Aggregate, SoftmaxLogits
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Backbone, Features, KeptImages
from vimlight.plugins import Attachment, Plugin, Slot

__all__ = ["KStreams", "LogitEnsemble"]


class Streams(Aggregate):
    """K passes, each with one module attached.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        **common: See `Aggregate`.
    """

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        self.streams = len(modules)
        self.zoo = nn.ModuleList(self.modules_in_zoo)

    @property
    def places(self) -> list[str]:
        """A single row: the streams do not differ by place."""
        return ["output"]

    @property
    def gates(self) -> Tensor:
        """Equal shares of the streams, `(1, K)`."""
        return torch.full((1, len(self.names)), 1 / len(self.names), device=next(self.backbone.parameters()).device)

    def stream(self, index: int, images: Tensor) -> Features:
        """Computes the features of one stream.

        Args:
            index: Which module.
            images: `(N, 3, H, W)`.

        Returns:
            `(N, D)`, or a list of maps.
        """
        if isinstance(images, KeptImages) and self.extra is None:
            return images.recall(self._identities[index], partial(self._pass, index))
        return self._pass(index, images)

    def stream_names(self) -> list[str]:
        """Returns what tells the passes of each module apart; none with a fresh plug-in, which changes them all."""
        return self._identities if self.extra is None else []

    @cached_property
    def _identities(self) -> list[str]:
        return [f"{self.readout} {module.identity()}" for module in self.modules_in_zoo]

    def _pass(self, index: int, images: Tensor) -> Features:
        plugin = self.zoo[index]
        assert isinstance(plugin, Plugin)
        kind = plugin.unit_type
        slots = [Slot(site, kind.reads, kind.writes, plugin.unit(site)) for site in plugin.sites]
        with Attachment(self.backbone, [*slots, *self.extra_slots()]):
            features: Features = self.backbone(images, self.readout)
        return features

    def train(self, mode: bool = True) -> Streams:
        """Keeps the zoo in eval mode."""
        super().train(mode)
        self.zoo.eval()
        return self


@AGGREGATORS.register("k_streams")
class KStreams(Streams):
    """The features of all streams side by side, `(N, K D)` or maps of K times the channels, under one head."""

    def forward(self, images: Tensor) -> Features:
        """Computes features of images `(N, 3, H, W)` in K passes."""
        return _join([self.stream(index, images) for index in range(self.streams)], torch.cat)

    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Returns the shape of one image's features over all streams."""
        return [(self.streams * channels, *rest) for channels, *rest in super().feature_shapes()]


@AGGREGATORS.register("logit_ensemble")
class LogitEnsemble(Streams):
    """A head of its own for each stream, their logits mixed with learned shares.

    The features come as `(N, K, D)`, maps as `(N, K, C, H, W)`: heads see the K streams apart and mix with `gates`.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        **common: See `Aggregate`.
    """

    gating: SoftmaxLogits

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        self.gating = SoftmaxLogits(1, len(modules))

    @property
    def gates(self) -> Tensor:
        """The shares of the streams in the logits, `(1, K)`; they sum to 1."""
        return self.gating.shares()

    def start_from(self, scores: Tensor) -> None:
        """Sets the logits of the shares to the scores.

        Args:
            scores: `(K,)`.
        """
        self.gating.start_from(scores)

    def forward(self, images: Tensor) -> Features:
        """Computes features of images `(N, 3, H, W)` in K passes."""
        return _join([self.stream(index, images) for index in range(self.streams)], torch.stack)


def _join(streams: Sequence[Features], how: Callable[..., Tensor]) -> Features:
    """Joins the streams' features, level by level, in dimension 1."""
    if isinstance(streams[0], Tensor):
        return how(streams, dim=1)
    return [how(level, dim=1) for level in zip(*streams, strict=True)]
