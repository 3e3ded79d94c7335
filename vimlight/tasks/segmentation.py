"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from vimlight.tasks.averages import over_classes, wide
from vimlight.tasks.heads import best_factor
from vimlight.tasks.maps import MapTask, upsample
from vimlight.tasks.registry import TASKS
from vimlight.tasks.targets import IGNORE, MASKS, Frame, nearest_in_frame

__all__ = ["Segmentation", "palette"]

# How much of its share of all positions is taken off the score of a class.
_PARTS = tuple(part / 8 for part in range(9))


@TASKS.register("segmentation")
class Segmentation(MapTask):
    """A class for every pixel; targets are masks `(N, H, W)` uint8, `IGNORE` (255) where the class is unknown.

    Predictions are masks of the same layout.

    Args:
        class_names: Names of the classes, the background among them where there is one.
        head: `"semantic_fpn"`, or `"linear"` for an affine map of each position, which has a closed form.
        width: Channels of the pyramid of `semantic_fpn`.
    """

    kind = "segmentation"
    monitor = "miou"
    layout = MASKS

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy over the pixels whose class is known."""
        logits = upsample(outputs, (targets.shape[-2], targets.shape[-1]))
        total = F.cross_entropy(logits, targets.long(), ignore_index=IGNORE, reduction="sum")
        return total / (targets != IGNORE).sum().clamp_min(1)

    def terms(self, targets: Tensor) -> Tensor:
        """Returns the number of pixels whose class is known."""
        return (targets != IGNORE).sum()

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns the most probable class of every pixel, `(N, H, W)` uint8."""
        return upsample(outputs, size).argmax(dim=1).to(torch.uint8)

    def metrics(self) -> MetricCollection:
        """Returns mean IoU over the classes that are shown or predicted, pixel accuracy, and the IoU of each class."""
        return MetricCollection({"scores": _Scores(self.class_names)})

    def confusion(self) -> Metric:
        """Returns the confusion of pixels `(C, C)`, rows the true classes."""
        return _Pixels(self.num_outputs)

    def pooled(self, targets: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns the share of each class around each position."""
        known = targets != IGNORE
        flags = F.one_hot(torch.where(known, targets, 0).long(), self.num_outputs).movedim(-1, 1).float()
        shares = F.adaptive_avg_pool2d(flags * known[:, None], grid)
        total = F.adaptive_avg_pool2d(known[:, None].float(), grid)
        return shares / total.clamp_min(1e-6), total[:, 0] > 0

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[float, Tensor]:
        """Returns the factor with the least cross-entropy, behind the offsets of classes with the best mean IoU.

        Least squares says the most frequent class wherever it knows little, which all others pay for.
        """
        shares = columns.mean(dim=0).to(left_out.dtype)
        offsets = [part * shares for part in _PARTS]
        offset = offsets[int(torch.stack([_mean_iou(left_out - each, columns) for each in offsets]).argmax())]
        return best_factor(left_out - offset, columns, F.cross_entropy), offset

    def table(self, predictions: Tensor) -> dict[str, list[Any]]:
        """Returns the classes that each mask shows."""
        return {"label": self.labels(predictions)}

    def file(self, prediction: Tensor, size: tuple[int, int]) -> tuple[str, bytes]:
        """Returns a PNG of the mask at the size of the image; its pixels are class numbers, shown in colours."""
        old = (prediction.shape[-2], prediction.shape[-1])
        mask = Image.fromarray(nearest_in_frame(prediction.cpu(), Frame(old, size, (0, 0), size), IGNORE).numpy())
        mask.putpalette(palette().flatten().tolist())
        buffer = io.BytesIO()
        mask.save(buffer, format="PNG")
        return ".png", buffer.getvalue()

    def labels(self, predictions: Tensor) -> list[str]:
        """Names the classes that each mask shows, joined by `|`."""
        found = MASKS.classes(predictions.cpu(), self.num_outputs).tolist()
        return ["|".join(n for n, shown in zip(self.class_names, row, strict=True) if shown) for row in found]

    def truth(self, targets: Tensor) -> list[str]:
        """Names the classes that each mask shows, joined by `|`."""
        return self.labels(targets)

    def draw(self, image: NDArray[np.uint8], item: Tensor) -> NDArray[np.uint8]:
        """Colours the pixels by their class; those of unknown class are left as they are."""
        mask = item.cpu().numpy()
        mixed = (0.45 * image + 0.55 * palette()[mask]).astype(np.uint8)
        return np.where((mask == IGNORE)[..., None], image, mixed)

    def colours(self) -> dict[str, tuple[int, int, int]]:
        """Returns the colour of each class."""
        shown = palette()[: len(self.class_names)].tolist()
        return {name: (red, green, blue) for name, (red, green, blue) in zip(self.class_names, shown, strict=True)}


class _Pixels(MulticlassConfusionMatrix):
    """The confusion of pixels; those of unknown class do not count."""

    def __init__(self, count: int) -> None:
        super().__init__(count, ignore_index=IGNORE, validate_args=False)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Counts the pixels of masks."""
        super().update(predictions.long(), targets.long())


class _Scores(_Pixels):
    """Scores that follow from the confusion of pixels, by name."""

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__(len(class_names))
        self.class_names = tuple(class_names)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]  # named scores instead of the matrix
        """Returns `miou`, `pixel_accuracy` and `iou_CLASS` of each class; of a class that does not occur, NaN."""
        matrix = wide(super().compute())
        hits, true, predicted = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
        either = true + predicted - hits
        # Where a class is neither shown nor predicted this is 0 / 0.
        iou = (hits / either).float()
        named = {f"iou_{name}": value for name, value in zip(self.class_names, iou, strict=True)}
        return {"miou": over_classes(hits, either), "pixel_accuracy": (hits.sum() / matrix.sum()).float(), **named}


def _mean_iou(scores: Tensor, shares: Tensor) -> Tensor:
    """Returns the mean IoU of the best scored classes `(M,)` with shares of the classes `(M, C)`."""
    found = F.one_hot(scores.argmax(dim=1), shares.shape[1]).to(shares.dtype)
    both = (found * shares).sum(dim=0)
    return (both / (found + shares).sum(dim=0).sub(both).clamp_min(1e-6))[shares.sum(dim=0) > 0].mean()


def palette() -> NDArray[np.uint8]:
    """Returns 256 colours that are told apart, `(256, 3)`: the bits of a number, spread over red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
            if 3 * bit + channel >= 8:
                break
    return colours
