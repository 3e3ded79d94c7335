"""The text side of a cached model: one vector per class name, scale and bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

__all__ = ["TextHead"]


@dataclass(frozen=True, eq=False)
class TextHead:
    """What makes logits of image features: `scale * cosine + bias`.

    Attributes:
        weights: `(M, E)` float32; rows are normalised when the head is made.
        scale: Factor of the cosines, such as 100 for CLIP.
        bias: What is added to every logit; zero for CLIP, about -10 for SigLIP.
    """

    weights: Tensor
    scale: float = 100.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Normalises the rows."""
        object.__setattr__(self, "weights", F.normalize(self.weights.float(), dim=1))

    def __len__(self) -> int:
        """Returns the number of classes M."""
        return len(self.weights)

    def logits(self, features: Tensor) -> Tensor:
        """Returns logits.

        Args:
            features: `(n, E)` float32, normalised.

        Returns:
            `(n, M)` float32.
        """
        return features @ self.weights.T.to(features) * self.scale + self.bias

    def columns(self, columns: Tensor) -> TextHead:
        """Returns the head of some of the classes.

        Args:
            columns: Class indices, int64.
        """
        return TextHead(self.weights[columns], self.scale, self.bias)
