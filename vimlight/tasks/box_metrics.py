"""Mean average precision of boxes, as COCO defines it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from vimlight.errors import ConfigError

__all__ = ["BoxPrecision", "box_metrics"]

_KEYS = ("map", "map_50", "map_75")


def box_metrics() -> MetricCollection:
    """Returns mean average precision over IoU thresholds 0.5 to 0.95, at 0.5 and at 0.75.

    Raises:
        ConfigError: If pycocotools is not installed.
    """
    try:
        import pycocotools  # noqa: F401
    except ImportError:
        raise ConfigError(
            "average precision of boxes needs pycocotools; install it with: pip install 'vimlight[detection]'"
        ) from None
    return MetricCollection({"boxes": BoxPrecision()})


class BoxPrecision(Metric):
    """COCO's average precision; an image that several processes saw counts once."""

    full_state_update = False
    higher_is_better = True
    images: Any
    found: Any
    truth: Any

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "found", "truth"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds images.

        Args:
            predictions: `"boxes"` `(B, 4)` as fractions of the image, `"scores"` `(B,)` and `"labels"` `(B,)` of each.
            targets: `"boxes"`, `"labels"`, `"crowd"` `(B,)` bool, `"size"` `(2,)` height and width, and `"image"`, a
                number that tells images apart.
        """
        if not len(targets):
            # Processes without images join in with those that have some, in the same widths and types.
            self.images.append(torch.zeros(0, 3, dtype=torch.int64, device=self.device))
            self.found.append(torch.zeros(0, 6, device=self.device))
            self.truth.append(torch.zeros(0, 6, device=self.device))
        for prediction, target in zip(predictions, targets, strict=True):
            counts = [len(prediction["labels"]), len(target["labels"])]
            self.images.append(torch.cat([target["image"].reshape(1), target["image"].new_tensor(counts)])[None])
            self.found.append(_rows(prediction, prediction["scores"], target["size"]))
            self.truth.append(_rows(target, target["crowd"], target["size"]))

    def compute(self) -> dict[str, Tensor]:
        """Computes `"map"`, `"map_50"` and `"map_75"`; not a number where there is nothing to be found."""
        found = _evaluate(*(dim_zero_cat(state).cpu() for state in (self.images, self.found, self.truth)))
        return {key: torch.where(found[key] < 0, torch.nan, found[key]).to(self.device) for key in _KEYS}


def _rows(objects: Mapping[str, Tensor], last: Tensor, size: Tensor) -> Tensor:
    """Returns one row an object: the box in pixels of the image file, the label and `last`, `(B, 6)`."""
    boxes = objects["boxes"].float() * size.flip(0).repeat(2)
    return torch.cat([boxes, objects["labels"].float()[:, None], last.float()[:, None]], dim=1)


def _evaluate(images: Tensor, found: Tensor, truth: Tensor) -> dict[str, Tensor]:
    from torchmetrics.detection import MeanAveragePrecision

    # Those of COCO in double precision: torchmetrics' own, rounded to single precision, exclude a recall of 0.4 at 0.4.
    metric = MeanAveragePrecision(
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        backend="pycocotools",
    )
    metric.warn_on_many_detections = False
    numbers, found_counts, truth_counts = (column.tolist() for column in images.unbind(dim=1))
    rows = zip(found.split(found_counts), truth.split(truth_counts), strict=True)
    # Samplers of others repeat images, and of equal scores the first image's counts as the better.
    once = dict(zip(numbers, rows, strict=True))
    for _, (mine, theirs) in sorted(once.items()):
        prediction = {"boxes": mine[:, :4], "labels": mine[:, 4].long(), "scores": mine[:, 5]}
        target = {"boxes": theirs[:, :4], "labels": theirs[:, 4].long(), "iscrowd": theirs[:, 5].long()}
        metric.update([prediction], [target])
    return dict(metric.compute())
