"""Depth, or any other number for every pixel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from vimlight.errors import ConfigError, unknown_name
from vimlight.tasks.averages import WideMetric, wide
from vimlight.tasks.base import Shapes
from vimlight.tasks.heads import ScaledOutputs
from vimlight.tasks.maps import MapTask, upsample
from vimlight.tasks.registry import TASKS
from vimlight.tasks.targets import FIELDS

__all__ = ["Depth"]

_LOSSES, _SCALES = ("silog", "l1"), ("log", "linear")
_SMALLEST = 1e-6


@TASKS.register("depth")
class Depth(MapTask):
    """A number for every pixel; targets are maps `(N, H, W)` float32, NaN where nothing is known.

    Predictions are maps of the same layout.

    Args:
        class_names: None are needed.
        head: `"semantic_fpn"`, or `"linear"` for an affine map of each position, which has a closed form.
        width: Channels of the pyramid of `semantic_fpn`.
        loss: `"silog"` for the scale-invariant loss `sqrt(mean d^2 - focus (mean d)^2)` of the differences d of
            logarithms [Eigen et al. 2014], `"l1"` for the mean absolute error.
        focus: How much of an error of scale the former forgives, from 0 to 1.
        scale: Whether the head predicts the logarithm (`"log"`), which suits distances, or the number itself
            (`"linear"`), which suits any other.

    Raises:
        UnknownNameError: If there is no such head, loss or scale.
        ConfigError: If the focus is out of range, or logarithms are asked for on a linear scale.
    """

    kind = "depth"
    monitor = "abs_rel"
    mode = "min"
    layout = FIELDS
    fewest_classes = 0

    def __init__(
        self,
        class_names: Sequence[str] = (),
        *,
        head: str = "semantic_fpn",
        width: int = 256,
        loss: str = "silog",
        focus: float = 0.85,
        scale: str = "log",
    ) -> None:
        super().__init__(class_names, head=head, width=width)
        if loss not in _LOSSES:
            raise unknown_name("loss of a depth task", loss, _LOSSES)
        if scale not in _SCALES:
            raise unknown_name("scale of a depth task", scale, _SCALES)
        if not 0 <= focus <= 1:
            raise ConfigError(f"focus must lie between 0 and 1, got {focus}")
        if loss == "silog" and scale == "linear":
            raise ConfigError("the loss 'silog' compares logarithms; with scale 'linear' take loss 'l1'")
        self.loss_name, self.focus, self.scale = loss, focus, scale

    @property
    def num_outputs(self) -> int:
        """One number for a position."""
        return 1

    def create_head(self, shapes: Shapes) -> nn.Module:
        """Creates the head; its outputs start around the middle of the targets."""
        return ScaledOutputs(super().create_head(shapes), 1, self.known)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss over the pixels whose value is known."""
        found = upsample(outputs, (targets.shape[-2], targets.shape[-1]))[:, 0]
        values, known = self._scaled(targets)
        if not known.any():
            return found.sum() * 0
        difference = found[known] - values
        if self.loss_name == "silog":
            # The same as in the class's text, without the difference of two large numbers where all is off by a scale.
            variance = difference.var(correction=0) + (1 - self.focus) * difference.mean().square()
            return variance.clamp_min(_SMALLEST).sqrt()
        return (self._real(found[known]) - targets[known]).abs().mean()

    def terms(self, targets: Tensor) -> int | Tensor:
        """Returns the number of pixels whose value is known; the root of `silog` is no mean over them."""
        return super().terms(targets) if self.loss_name == "silog" else self._scaled(targets)[1].sum()

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns a number for every pixel, `(N, H, W)`."""
        return self._real(upsample(outputs, size)[:, 0])

    def metrics(self) -> MetricCollection:
        """Returns relative, root mean square and mean absolute error, and the shares within 1.25, 1.25^2 and 1.25^3."""
        return MetricCollection({"errors": _Errors()})

    def pooled(self, targets: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns the mean of what is known around each position, of logarithms on a logarithmic scale."""
        values, known = self._scaled(targets)
        filled = torch.zeros_like(targets).masked_scatter(known, values)
        share = F.adaptive_avg_pool2d(known[:, None].float(), grid)
        return F.adaptive_avg_pool2d(filled[:, None], grid) / share.clamp_min(_SMALLEST), share[:, 0] > 0

    def known(self, targets: Tensor) -> Tensor:
        """Returns what is known on the scale of the outputs, `(M, 1)`."""
        return self._scaled(targets)[0][:, None]

    def table(self, predictions: Tensor) -> dict[str, list[Any]]:
        """Returns the mean of each map."""
        return {"mean": predictions.flatten(1).mean(dim=1).tolist()}

    def file(self, prediction: Tensor, size: tuple[int, int]) -> tuple[str, bytes]:
        """Returns an NPZ file with `depth` `(H, W)` float32 at the size of the image."""
        field = F.interpolate(prediction[None, None].cpu().float(), size=size, mode="bilinear", align_corners=False)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, depth=field[0, 0].numpy())
        return ".npz", buffer.getvalue()

    def labels(self, predictions: Tensor) -> list[str]:
        """Says the range of each map."""
        return [_range(field) for field in predictions]

    def truth(self, targets: Tensor) -> list[str]:
        """Says the range of what is known of each map."""
        return [_range(field) for field in targets]

    def draw(self, image: NDArray[np.uint8], item: Tensor) -> NDArray[np.uint8]:
        """Draws near pixels bright and far ones dark; unknown ones blue."""
        field = item.detach().cpu().float().numpy()
        known = np.isfinite(field)
        low, high = (field[known].min(), field[known].max()) if known.any() else (0.0, 1.0)
        grey = 255 * (1 - (np.where(known, field, high) - low) / max(float(high - low), _SMALLEST))
        drawn = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
        drawn[~known] = (40, 60, 160)
        return drawn

    def _scaled(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is known on the scale of the outputs `(M,)`, and where `(N, H, W)`."""
        known = targets.isfinite() & (targets > 0) if self.scale == "log" else targets.isfinite()
        values = targets[known]
        return values.clamp_min(_SMALLEST).log() if self.scale == "log" else values, known

    def _real(self, outputs: Tensor) -> Tensor:
        # Further than e^20 is nowhere, and would be infinite one day.
        return outputs.clamp(-20, 20).exp() if self.scale == "log" else outputs


class _Errors(WideMetric):
    """Errors over all pixels whose value is known."""

    count: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(6, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds the pixels of maps `(N, H, W)`."""
        known = targets.isfinite()
        found, true = wide(predictions[known]), wide(targets[known])
        # Ratios mean something between positive numbers alone.
        positive = true > 0
        near, far = found[positive].clamp_min(_SMALLEST), true[positive]
        ratio = torch.maximum(near / far, far / near)
        error = (found - true).abs()
        shares = [(ratio < 1.25**power).to(error.dtype).sum() for power in (1, 2, 3)]
        relative = (error[positive] / far).sum()
        self.sums += torch.stack([error.sum(), error.square().sum(), relative, *shares])
        self.count += torch.stack([known.sum(), positive.sum()])

    def compute(self) -> dict[str, Tensor]:
        """Returns `abs_rel`, `rmse`, `mae` and `delta1` to `delta3`."""
        count, positive = self.count
        names = ("mae", "mse", "abs_rel", "delta1", "delta2", "delta3")
        means = self.sums / torch.stack([count, count, *[positive] * 4])
        named = dict(zip(names, means.float(), strict=True))
        named["rmse"] = named.pop("mse").sqrt()
        return named


def _range(field: Tensor) -> str:
    known = field[field.isfinite()]
    return f"{known.min():.3g} to {known.max():.3g}" if known.numel() else "unknown"
