"""Retrieval: features by which images of one class find each other, with no head on top."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from vimlight.errors import ConfigError
from vimlight.tasks.base import Shapes, Task
from vimlight.tasks.closed_form import ridge
from vimlight.tasks.heads import AffineHead
from vimlight.tasks.registry import TASKS

__all__ = ["Embedding", "Retrieval", "RetrievalScores"]


@TASKS.register("retrieval")
class Retrieval(Task):
    """Vectors that are near for images of one class; targets are class numbers `(N,)`, predictions vectors `(N, D)`.

    There is no head: the features themselves, standardised and of length 1, are judged, each image of a split against
    all others of it. A module or gates are trained by a supervised contrastive loss over the batch [Khosla et al.
    2020].

    Args:
        class_names: Names of the classes.
        temperature: Of the softmax over the batch's images.
        neighbours: How many nearest images vote on an image's class.

    Raises:
        ConfigError: If a number is out of range.
    """

    kind = "retrieval"
    monitor = "map"
    measure_training = False

    def __init__(self, class_names: Sequence[str] = (), *, temperature: float = 0.1, neighbours: int = 5) -> None:
        super().__init__(class_names)
        if temperature <= 0 or neighbours < 1:
            raise ConfigError(
                f"retrieval needs a temperature above 0 and at least 1 neighbour, got {temperature} and {neighbours}"
            )
        self.temperature, self.neighbours = temperature, neighbours

    def create_head(self, shapes: Shapes) -> nn.Module:
        """Creates what scales the features; nothing of it is trained."""
        return Embedding(shapes[0][0])

    @property
    def closed_form(self) -> bool:
        """There is no head to solve."""
        return False

    @property
    def ranks(self) -> bool:
        """Modules are ranked by how well an affine map of their features tells the classes."""
        return True

    def columns(self, targets: Tensor) -> Tensor:
        """Returns one-hot rows `(N, C)`."""
        return F.one_hot(targets, len(self.class_names)).float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean over images of `-log softmax` of their likeness to those of their class in the batch."""
        # A temperature of 0.1 makes ten times as much of what bfloat16 rounds off.
        with torch.autocast(outputs.device.type, enabled=False):
            likeness = outputs.float() @ outputs.float().T / self.temperature
        itself = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
        alike = (targets[:, None] == targets) & ~itself
        shares = likeness.masked_fill(itself, float("-inf")).log_softmax(dim=1)
        found = torch.where(alike, shares, 0.0).sum(dim=1) / alike.sum(dim=1).clamp_min(1)
        return -found.sum() / alike.any(dim=1).sum().clamp_min(1)

    def terms(self, targets: Tensor) -> Tensor:
        """Returns the number of images with another one of their class in the batch."""
        return _accompanied(targets).sum()

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns the vectors."""
        return outputs.float()

    def metrics(self) -> MetricCollection:
        """Returns recall at 1 and 5, mean average precision, and the accuracies of neighbours and of a linear probe."""
        return MetricCollection({"scores": RetrievalScores(len(self.class_names), self.neighbours)})

    def table(self, predictions: Tensor) -> dict[str, list[Any]]:
        """Returns nothing beside the files."""
        return {}

    def file(self, prediction: Tensor, size: tuple[int, int]) -> tuple[str, bytes]:
        """Returns an NPY file of the vector `(D,)` float32."""
        buffer = io.BytesIO()
        np.save(buffer, prediction.detach().cpu().float().numpy())
        return ".npy", buffer.getvalue()

    def truth(self, targets: Tensor) -> list[str]:
        """Names the class of each image."""
        return [self.class_names[index] for index in targets.tolist()]


class Embedding(nn.Module):
    """Standardised features of length 1; nothing is learned.

    Args:
        num_features: Width of the features, D.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.scaling = AffineHead(num_features, 1).requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Returns unit vectors `(N, D)`."""
        return F.normalize(((features - self.scaling.mean) / self.scaling.scale).float(), dim=1)

    def start(self, features: Tensor, targets: Any) -> None:
        """Takes mean and scale from features of some training images."""
        self.scaling.standardise(features)


class RetrievalScores(Metric):
    """How well each image finds those of its class among all others.

    Args:
        num_classes: Number of classes.
        neighbours: How many nearest images vote on a class.
        probed: Number of images that the linear probe is solved for, at most.
    """

    full_state_update = False
    vectors: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_classes: int, neighbours: int = 5, probed: int = 2000) -> None:
        super().__init__()
        self.num_classes, self.neighbours, self.probed = num_classes, neighbours, probed
        self.add_state("vectors", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Keeps vectors `(N, D)` and classes `(N,)`."""
        self.vectors.append(predictions)
        self.labels.append(targets)

    def compute(self) -> dict[str, Tensor]:
        """Returns `recall_at_1`, `recall_at_5`, `map`, `knn_accuracy` and `probe_accuracy`.

        Images that are alone in their class ask for nothing: there is nobody to find, to vote or to learn from. Where
        all are, there is no number. The probe is ridge regression, scored at each image by the fit without it; one
        decomposition serves all strengths and all images.
        """
        vectors, labels = dim_zero_cat(self.vectors), dim_zero_cat(self.labels)
        asked, parts = _accompanied(labels), list(self._rows(vectors, labels))
        names = ("recall_at_1", "recall_at_5", "map", "knn_accuracy")
        found = {name: torch.cat([part[name] for part in parts])[asked].float().mean() for name in names if parts}
        nothing = dict.fromkeys(names, torch.full((), torch.nan, device=vectors.device))
        return {**nothing, **found, "probe_accuracy": self._probe(vectors, labels)}

    def _rows(self, vectors: Tensor, labels: Tensor, chunk: int = 512) -> Iterator[dict[str, Tensor]]:
        """Yields the scores of images, some at a time, so that memory does not grow with the square of their number."""
        for start in range(0, len(vectors), chunk):
            rows = torch.arange(start, min(start + chunk, len(vectors)), device=vectors.device)
            likeness = vectors[rows] @ vectors.T
            likeness[torch.arange(len(rows), device=rows.device), rows] = float("-inf")
            order = likeness.argsort(dim=1, descending=True)[:, :-1]
            alike = labels[order] == labels[rows, None]
            rank = torch.arange(1, order.shape[1] + 1, device=rows.device)
            precision = alike.cumsum(dim=1) / rank
            votes = F.one_hot(labels[order[:, : self.neighbours]], self.num_classes).sum(dim=1)
            yield {
                "recall_at_1": alike[:, :1].any(dim=1),
                "recall_at_5": alike[:, :5].any(dim=1),
                "map": (precision * alike).sum(dim=1) / alike.sum(dim=1).clamp_min(1),
                "knn_accuracy": votes.argmax(dim=1) == labels[rows],
            }

    def _probe(self, vectors: Tensor, labels: Tensor) -> Tensor:
        if len(vectors) < 3:
            return torch.full((), float("nan"), device=vectors.device)
        every = max(1, -(-len(vectors) // self.probed))
        # The same images, whatever order they came in.
        sample = vectors[:, 0].argsort()[::every]
        vectors, labels = vectors[sample], labels[sample]
        scores = ridge(vectors, F.one_hot(labels, self.num_classes)).left_out
        return (scores.argmax(dim=1) == labels)[_accompanied(labels)].float().mean()


def _accompanied(labels: Tensor) -> Tensor:
    """Returns which images have another one of their class beside them, `(N,)`."""
    _, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    accompanied: Tensor = counts[index] > 1
    return accompanied
