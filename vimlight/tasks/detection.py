"""Detection: a box and a class for every object of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchvision.utils import draw_bounding_boxes

from vimlight.errors import ConfigError
from vimlight.tasks.base import Shapes, Task
from vimlight.tasks.box_layout import BOXES
from vimlight.tasks.box_metrics import box_curves, box_metrics
from vimlight.tasks.closed_form import Examples
from vimlight.tasks.fcos import FCOS, decode, fcos_loss
from vimlight.tasks.registry import TASKS

__all__ = ["Detection"]

Objects = Mapping[str, Tensor]
# Vectors that rankings of modules are fitted to, in all; their cost grows with the cube.
_EXAMPLES = 1500


@TASKS.register("detection")
class Detection(Task):
    """Boxes of objects, by an FCOS head on a pyramid of the maps.

    Targets are lists of dictionaries, see `BoxLayout`; a prediction is a dictionary of `"boxes"` `(B, 4)` as fractions
    of the image's width and height, `"scores"` `(B,)` and `"labels"` `(B,)`, best first. Crowds and difficult objects
    are neither learnt nor counted. Predictions are written as COCO results, one row an object.

    Args:
        class_names: Names of the classes.
        width: Channels of the pyramid and the head, a multiple of 32.
        levels: Levels of the pyramid; of a plain transformer with patches of 16 pixels, strides 8, 16, 32 and 64.
        convs: Convolutions in each of the head's two branches.
        score_threshold: Boxes with a lower score are dropped.
        overlap: Of two boxes of a class with a greater IoU the better one stays.
        detections: Boxes of an image that are kept, at most.

    Raises:
        ConfigError: If a setting is out of range.
    """

    kind = "detection"
    monitor = "map"
    reads = "maps"
    layout = BOXES
    fewest_classes = 1
    measure_training = False

    def __init__(
        self,
        class_names: Sequence[str] = (),
        *,
        width: int = 128,
        levels: int = 4,
        convs: int = 2,
        score_threshold: float = 0.05,
        overlap: float = 0.6,
        detections: int = 100,
    ) -> None:
        super().__init__(class_names)
        for name, value in (("score_threshold", score_threshold), ("overlap", overlap)):
            if not 0 <= value < 1:
                raise ConfigError(f"{name} of a detection task must lie in [0, 1), got {value}")
        if min(convs, detections) < 1:
            raise ConfigError(f"convs and detections of a detection task must be at least 1, got {convs}, {detections}")
        self._head: dict[str, Any] = {"width": width, "levels": levels, "convs": convs}
        self._decoding: dict[str, Any] = {
            "score_threshold": score_threshold, "overlap": overlap, "detections": detections,
        }  # fmt: skip
        self._category_ids: Sequence[int] = range(1, len(class_names) + 1)

    def create_head(self, shapes: Shapes) -> nn.Module:
        """Creates the pyramid and the head."""
        return FCOS(shapes, self.num_outputs, **self._head)

    def prepare(self, targets: Any) -> None:
        """Takes up the category numbers of a COCO file, which predictions are written with."""
        self._category_ids = getattr(targets, "category_ids", None) or self._category_ids

    def loss(self, outputs: Any, targets: Sequence[Objects]) -> Tensor:
        """Returns the sum of focal loss, generalised IoU loss and cross-entropy of the centreness."""
        return torch.stack(list(fcos_loss(outputs, targets).values())).sum()

    def predictions(self, outputs: Any, size: tuple[int, int] = (0, 0)) -> list[dict[str, Tensor]]:
        """Returns the boxes of each image, best first."""
        return decode(outputs, **self._decoding)

    def metrics(self) -> MetricCollection:
        """Returns mean average precision as COCO defines it: `map`, `map_50` and `map_75`."""
        return box_metrics()

    def precision_recall(self) -> Metric:
        """Returns each class by the scores of its boxes, at an IoU of 0.5."""
        return box_curves(self.num_outputs)

    @property
    def ranks(self) -> bool:
        """Modules can be ranked by how well the last map tells the objects at its positions."""
        return True

    def examples(self, features: Sequence[Tensor], targets: Sequence[Objects], images: int) -> Examples:
        """Returns vectors of the last map and which class the smallest object there has, `(M, C)`, 0 without one.

        Positions are spread over the map, as many of each image as keep the whole small; crowds are left out.
        """
        maps = features[-1]
        height, width = maps.shape[2:]
        cells = _spread(height * width, max(1, _EXAMPLES // images), maps.device)
        places = torch.stack([(cells % width + 0.5) / width, (cells // width + 0.5) / height], dim=1)
        vectors, columns, numbers = [], [], []
        for number, (image, target) in enumerate(zip(maps.flatten(2), targets, strict=True)):
            shown, known = _shown(places, target, self.num_outputs)
            vectors.append(image[:, cells].T[known])
            columns.append(shown[known])
            numbers.append(torch.full((len(columns[-1]),), number, device=maps.device))
        return Examples(torch.cat(vectors), torch.cat(columns), torch.cat(numbers))

    def rows(
        self, ids: Sequence[str], predictions: Sequence[Objects], sizes: Sequence[tuple[int, int]]
    ) -> list[list[dict[str, Any]]]:
        """Returns the objects of each image as COCO's results format has them, in pixels of the image file."""
        return [self._results(*image) for image in zip(ids, predictions, sizes, strict=True)]

    def _results(self, name: str, found: Objects, size: tuple[int, int]) -> list[dict[str, Any]]:
        boxes = found["boxes"].double().cpu() * torch.tensor([size[1], size[0], size[1], size[0]])
        boxes[:, 2:] -= boxes[:, :2].clone()
        values = zip(boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
        # COCO's images are numbered; others have names, such as 0012.
        image = int(name) if name.isdecimal() and str(int(name)) == name else name
        return [
            {
                "image_id": image,
                "category_id": self._category_ids[label],
                "bbox": [round(value, 3) for value in box],
                "score": score,
                "label": self.class_names[label],
            }
            for box, label, score in values
        ]

    def labels(self, predictions: Sequence[Objects]) -> list[str]:
        """Names the three best boxes of each image."""
        return [_named(self.class_names, found["labels"][:3]) for found in predictions]

    def truth(self, targets: Sequence[Objects]) -> list[str]:
        """Names the objects of each image, but for those that are ignored."""
        return [_named(self.class_names, target["labels"][~target["crowd"]]) for target in targets]

    def draw(self, image: NDArray[np.uint8], item: Objects) -> NDArray[np.uint8]:
        """Draws boxes, of predictions the best: those with at least half of the best score, ten at most.

        How high scores are depends on how long was trained, and pictures without any box show nothing.
        """
        kept = _best(item["scores"]) if "scores" in item else ~item["crowd"]
        height, width = image.shape[:2]
        boxes = (item["boxes"][kept] * torch.tensor([width - 1, height - 1, width - 1, height - 1])).round()
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        if len(boxes):
            labels = item["labels"][kept].tolist()
            # Text would cover small pictures.
            names = [self.class_names[label] for label in labels] if min(height, width) >= 128 else None
            pixels = draw_bounding_boxes(pixels, boxes, names, colors=[_colour(label) for label in labels])
        drawn: NDArray[np.uint8] = pixels.permute(1, 2, 0).numpy()
        return drawn

    def colours(self) -> dict[str, tuple[int, int, int]]:
        """Returns the colour of each class."""
        return {name: _colour(label) for label, name in enumerate(self.class_names)}


def _best(scores: Tensor, most: int = 10) -> Tensor:
    """Tells which scores are at least half as high as the best, as a mask with room for a few."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    if len(scores):
        kept[scores.argsort(descending=True)[:most]] = True
        kept &= scores >= 0.5 * scores.max()
    return kept


def _named(names: Sequence[str], labels: Tensor) -> str:
    return "|".join(names[label] for label in labels.tolist())


def _colour(label: int) -> tuple[int, int, int]:
    """Returns a bright colour; those of neighbouring classes lie a golden section of the circle apart."""
    red, green, blue = hsv_to_rgb(label * 0.618 % 1, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _spread(count: int, most: int, device: torch.device) -> Tensor:
    """Returns at most `most` of the numbers below `count`, in random order that is always the same."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].to(device)


def _shown(places: Tensor, target: Objects, count: int) -> tuple[Tensor, Tensor]:
    """Returns the class at each place as a row `(P, C)`, and whether the place lies in no crowd `(P,)`."""
    boxes = target["boxes"]
    inside = (places[:, None] > boxes[:, :2]).all(dim=2) & (places[:, None] < boxes[:, 2:]).all(dim=2)
    known = ~(inside & target["crowd"]).any(dim=1)
    shown = torch.zeros(len(places), count, device=places.device)
    if len(boxes):
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        least, index = torch.where(inside, area, torch.inf).min(dim=1)
        shown[torch.arange(len(places)), target["labels"][index]] = (least < torch.inf).float()
    return shown, known
