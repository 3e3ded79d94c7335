"""Average precision of boxes and the curves that it is the area of, as COCO defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from vimlight.errors import ConfigError

__all__ = ["BoxCurves", "BoxPrecision", "box_curves", "box_metrics"]

_KEYS = ("map", "map_50", "map_75")
_OVERLAPS = np.linspace(0.5, 0.95, 10).tolist()
# Those of COCO in double precision: torchmetrics' own, rounded to single precision, exclude a recall of 0.4 at 0.4.
_RECALLS = np.linspace(0, 1, 101).tolist()


def box_metrics() -> MetricCollection:
    """Returns mean average precision over IoU thresholds 0.5 to 0.95, at 0.5 and at 0.75.

    Raises:
        ConfigError: If pycocotools is not installed.
    """
    _need_pycocotools()
    return MetricCollection({"boxes": BoxPrecision()})


def box_curves(count: int) -> BoxCurves:
    """Returns precision over recall of each class, at an IoU of 0.5.

    Args:
        count: Number of classes C.

    Raises:
        ConfigError: If pycocotools is not installed.
    """
    _need_pycocotools()
    return BoxCurves(count)


class _Boxes(Metric):
    """Gathers boxes; an image that several processes saw counts once."""

    full_state_update = False
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

    def _evaluate(self, **settings: Any) -> dict[str, Tensor]:
        """Returns what torchmetrics' `MeanAveragePrecision` of some settings says of all images, on the CPU."""
        return _evaluate(*(dim_zero_cat(state).cpu() for state in (self.images, self.found, self.truth)), **settings)


class BoxPrecision(_Boxes):
    """COCO's average precision."""

    higher_is_better = True

    def compute(self) -> dict[str, Tensor]:
        """Computes `"map"`, `"map_50"` and `"map_75"`; not a number where there is nothing to be found."""
        found = self._evaluate(iou_thresholds=_OVERLAPS)
        return {key: torch.where(found[key] < 0, torch.nan, found[key]).to(self.device) for key in _KEYS}


class BoxCurves(_Boxes):
    """COCO's precision over recall of each class, at an IoU of 0.5: the mean of a class's precisions is its AP there.

    Its value is `(C, 101, 2)`: recall from 1 down to 0, and the best precision at that recall or a higher one, which is
    0 where no threshold reaches it. A class that no image has has neither (NaN).

    Args:
        count: Number of classes C.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def compute(self) -> Tensor:
        """Returns recall and precision."""
        found = self._evaluate(iou_thresholds=_OVERLAPS[:1], extended_summary=True)
        curves = torch.full((self.count, len(_RECALLS), 2), torch.nan)
        if "precision" in found:
            # Of thresholds, recalls, classes, areas and most detections an image: all areas, as many as there may be.
            precision = found["precision"][0, :, :, 0, -1].T.flip(1).float()
            recall = torch.tensor(_RECALLS).flip(0).expand_as(precision)
            shown = precision[:, 0] >= 0
            curves[found["classes"].reshape(-1).long()[shown]] = torch.stack([recall, precision], dim=-1)[shown]
        return curves.to(self.device)


def _need_pycocotools() -> None:
    try:
        import pycocotools  # noqa: F401
    except ImportError:
        raise ConfigError(
            "average precision of boxes needs pycocotools; install it with: pip install 'vimlight[detection]'"
        ) from None


def _rows(objects: Mapping[str, Tensor], last: Tensor, size: Tensor) -> Tensor:
    """Returns one row an object: the box in pixels of the image file, the label and `last`, `(B, 6)`."""
    boxes = objects["boxes"].float() * size.flip(0).repeat(2)
    return torch.cat([boxes, objects["labels"].float()[:, None], last.float()[:, None]], dim=1)


def _evaluate(images: Tensor, found: Tensor, truth: Tensor, **settings: Any) -> dict[str, Tensor]:
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(rec_thresholds=_RECALLS, backend="pycocotools", **settings)
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
