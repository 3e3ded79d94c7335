"""FCOS: one box for each position of a pyramid [Tian et al. 2019, "Fully convolutional one-stage object detection"].

Convolutions, losses and suppression are torchvision's. Unlike its `FCOS`, which is a whole model with resizing inside,
this is a head over given maps; positions lie in the middle of their cells, regions that are to be ignored are left out
of the loss, and boxes are fractions of the image, so that nothing depends on the size of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

from vimlight.errors import ConfigError
from vimlight.tasks.pyramid import Pyramid

__all__ = ["FCOS", "assign", "decode", "fcos_loss"]

Outputs = dict[str, Tensor]
Boxes = dict[str, Tensor]
# A level is responsible for boxes that reach from 4 to 8 of its cells; the first and the last also for what is beyond.
_REACH = (4.0, 8.0)
# Only positions near the middle of an object predict it, in cells.
_MIDDLE = 1.5


class FCOS(nn.Module):
    """A pyramid with torchvision's FCOS head on it.

    Args:
        shapes: Channels, height and width of each map of an image.
        num_outputs: Number of classes, C.
        width: Channels of the pyramid and the head, a multiple of 32.
        levels: Levels of the pyramid.
        convs: Convolutions in each of the two branches.

    Raises:
        ConfigError: If the width is no multiple of 32, or the pyramid cannot be built.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        num_outputs: int,
        *,
        width: int = 128,
        levels: int = 4,
        convs: int = 2,
    ) -> None:
        super().__init__()
        if width < 1 or width % 32:
            raise ConfigError(f"the width of a detection head must be a multiple of 32, got {width}")
        self.pyramid = Pyramid(shapes, width=width, levels=levels)
        self.head = FCOSHead(width, 1, num_outputs, convs)
        # Distances pass a rectifier: they must not start where it has no gradient.
        nn.init.constant_(self.head.regression_head.bbox_reg.bias, 2.0)

    def forward(self, maps: Sequence[Tensor]) -> Outputs:
        """Computes what is predicted at each of the P positions of all levels.

        Args:
            maps: `(N, channels, height, width)` each.

        Returns:
            float32: `"logits"` `(N, P, C)`, `"distances"` to left, top, right and bottom in cells `(N, P, 4)`,
            `"centreness"` logits `(N, P)`; and the positions, `"points"` `(P, 6)`: x, y, width and height of the
            cell as fractions of the image, and the least and greatest reach in cells.
        """
        levels = self.pyramid(maps)
        found = self.head(levels)
        return {
            "logits": found["cls_logits"].float(),
            "distances": found["bbox_regression"].float(),
            "centreness": found["bbox_ctrness"].float().squeeze(2),
            "points": _points(levels),
        }


def _points(levels: Sequence[Tensor]) -> Tensor:
    parts = []
    for number, level in enumerate(levels):
        height, width = level.shape[2:]
        y = (torch.arange(height, device=level.device) + 0.5) / height
        x = (torch.arange(width, device=level.device) + 0.5) / width
        low = 0.0 if number == 0 else _REACH[0]
        high = torch.inf if number == len(levels) - 1 else _REACH[1]
        rest = torch.tensor([1 / width, 1 / height, low, high], device=level.device).expand(height, width, 4)
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        parts.append(torch.cat([grid, rest], dim=-1).flatten(0, 1))
    return torch.cat(parts)


def _distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Returns how far the sides of boxes `(..., 4)` lie from positions `(P, 6)`, in cells; the shapes broadcast."""
    cell = points[:, 2:4]
    low = (points[:, :2] - boxes[..., :2]) / cell
    high = (boxes[..., 2:] - points[:, :2]) / cell
    return torch.cat([low, high], dim=-1)


def _boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Returns boxes `(..., P, 4)` from distances in cells, the inverse of `_distances`."""
    cell = points[:, 2:4]
    low = points[:, :2] - distances[..., :2] * cell
    return torch.cat([low, points[:, :2] + distances[..., 2:] * cell], dim=-1)


def assign(points: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Says which object each position has to predict.

    It is the smallest of those that the position lies in, near their middle, on the level for their size.

    Args:
        points: `(P, 6)`; see `FCOS.forward`.
        targets: `"boxes"` `(B, 4)` and `"crowd"` `(B,)` of each of N images.

    Returns:
        The number of the object among those of its image, -1 where there is none, `(N, P)` int64; and whether the
        position is to be ignored, since all it lies in is a crowd, `(N, P)` bool.
    """
    boxes = pad_sequence([target["boxes"] for target in targets], batch_first=True)
    # What is padded has no area; a column of it serves images without objects.
    boxes = F.pad(boxes, (0, 0, 0, 1))
    crowd = F.pad(pad_sequence([target["crowd"] for target in targets], batch_first=True), (0, 1))
    distances = _distances(points, boxes[:, :, None])
    inside, reach = distances.amin(dim=-1) > 0, distances.amax(dim=-1)
    offset = (distances[..., :2] - distances[..., 2:]).abs().amax(dim=-1) / 2
    mine = inside & (offset < _MIDDLE) & (reach > points[:, 4]) & (reach < points[:, 5]) & ~crowd[:, :, None]
    area = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))[:, :, None]
    least, index = torch.where(mine, area, torch.inf).min(dim=1)
    found = least < torch.inf
    ignored = (inside & crowd[:, :, None]).any(dim=1) & ~found
    return torch.where(found, index, -1), ignored


def fcos_loss(outputs: Outputs, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Computes the three parts of the loss, each a scalar: per position that predicts an object.

    Args:
        outputs: As `FCOS.forward` returns them.
        targets: `"boxes"` `(B, 4)` as fractions of the image, `"labels"` `(B,)` and `"crowd"` `(B,)` of each image.

    Returns:
        `"class"` (focal), `"box"` (generalised IoU) and `"centreness"` (cross-entropy).
    """
    points = outputs["points"]
    index, ignored = assign(points, targets)
    found = index >= 0
    # A row for images without objects keeps the indices valid.
    boxes = F.pad(pad_sequence([target["boxes"] for target in targets], batch_first=True), (0, 0, 0, 1))
    labels = F.pad(pad_sequence([target["labels"] for target in targets], batch_first=True), (0, 1))
    chosen = index.clamp_min(0)
    wanted = torch.gather(boxes, 1, chosen[..., None].expand(-1, -1, 4))
    classes = F.one_hot(torch.gather(labels, 1, chosen), outputs["logits"].shape[-1]) * found[..., None]
    focal = sigmoid_focal_loss(outputs["logits"], classes.to(outputs["logits"].dtype))
    predicted = _boxes(points, outputs["distances"])
    centreness = _centreness(_distances(points, wanted)[found])
    count = _shared(found.sum())
    entropy = F.binary_cross_entropy_with_logits(outputs["centreness"][found], centreness, reduction="sum")
    return {
        "class": (focal * ~ignored[..., None]).sum() / count,
        "box": generalized_box_iou_loss(predicted[found], wanted[found], reduction="sum") / count,
        "centreness": entropy / count,
    }


def _shared(count: Tensor) -> Tensor:
    """Returns how many positions the parts of the loss are divided by: with several processes, the mean over them.

    Then their averaged gradients are those of one process with all their images.
    """
    total, processes = count.float(), 1
    if torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized():
        processes = distributed.get_world_size()
        distributed.all_reduce(total)
    return total.clamp_min(1) / processes


def _centreness(distances: Tensor) -> Tensor:
    """Returns 1 in the middle of a box and 0 at its sides, for distances `(M, 4)`."""
    low, high = distances[:, :2], distances[:, 2:]
    return (torch.minimum(low, high) / torch.maximum(low, high)).prod(dim=-1).sqrt()


def decode(
    outputs: Outputs,
    *,
    score_threshold: float = 0.05,
    overlap: float = 0.6,
    candidates: int = 1000,
    detections: int = 100,
) -> list[Boxes]:
    """Turns outputs into boxes.

    Args:
        outputs: As `FCOS.forward` returns them.
        score_threshold: Boxes with a lower score are dropped.
        overlap: Of two boxes of a class with a greater IoU the better one stays.
        candidates: How many boxes of an image enter that comparison, at most.
        detections: How many boxes of an image are kept, at most.

    Returns:
        For each image `"boxes"` `(B, 4)` as fractions of it, `"scores"` `(B,)` and `"labels"` `(B,)`, best first.
    """
    scores = (outputs["logits"].sigmoid() * outputs["centreness"].sigmoid()[..., None]).sqrt()
    boxes = _boxes(outputs["points"], outputs["distances"]).clamp(0, 1)
    found = []
    for image_scores, image_boxes in zip(scores, boxes, strict=True):
        best, cells = image_scores.flatten().topk(min(candidates, image_scores.numel()))
        kept = best > score_threshold
        best, cells = best[kept], cells[kept]
        labels = cells % scores.shape[-1]
        corners = image_boxes[torch.div(cells, scores.shape[-1], rounding_mode="floor")]
        rows = batched_nms(corners, best, labels, overlap)[:detections]
        found.append({"boxes": corners[rows], "scores": best[rows], "labels": labels[rows]})
    return found
