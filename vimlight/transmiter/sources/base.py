"""What every way of fine-tuning is: what it reads, what it learns, and what of it goes into a cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from vimlight.errors import ConfigError
from vimlight.transmiter.cache import LogitCache, TextHead
from vimlight.transmiter.cache.heads import model_of
from vimlight.transmiter.models.image_text import ImageTextModel

__all__ = ["Start", "Tuning", "at_least", "share"]


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from.

    Attributes:
        cache: The zero-shot cache of the training images.
        head: The text head of its C task classes.
        labelled: Function that returns features `(n, E)` and labels `(n,)` of the training images.
        seed: Decides what is drawn at the start.
    """

    cache: LogitCache
    head: TextHead
    labelled: Callable[[], tuple[Tensor, Tensor]]
    seed: int = 0

    def load_model(self) -> ImageTextModel:
        """Loads the model that the cache was built with; the global random state stays as it is.

        Raises:
            CacheError: If the cache does not say which, or its weights are others by now.
        """
        # A model is made with random weights before its own are read in.
        with torch.random.fork_rng(devices=()):
            return model_of(self.cache)

    @property
    def generator(self) -> torch.Generator:
        """A source of randomness that depends on the seed alone."""
        return torch.Generator().manual_seed(self.seed)


class Tuning(nn.Module, ABC):
    """A fine-tuned image-text model, or what of it is not in a cache already.

    Args:
        start: What it starts from.

    Attributes:
        reads: What `forward` takes: `"features"` `(n, E)` of a cache, or prepared `"images"` `(n, 3, H, W)`.
        learning_rate: The learning rate of the default optimiser.
        weight_decay: Its weight decay.
        learned: All that is trained; nothing else changes.
    """

    reads: ClassVar[str] = "features"
    learning_rate: ClassVar[float] = 1e-3
    weight_decay: ClassVar[float] = 0.01
    learned: nn.Module
    text: Tensor

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.scale, self.bias = start.head.scale, start.head.bias
        self.register_buffer("text", start.head.weights.clone(), persistent=False)

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of features or images."""

    @abstractmethod
    def rows(self, inputs: Tensor) -> Tensor:
        """Returns what a cache keeps of each image: features `(n, E)` if there is a head, else logits `(n, C)`."""

    def head(self) -> TextHead | None:
        """Returns the tuned text head, or none if logits are kept."""
        return None

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Makes the default optimiser."""
        return AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def head_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Returns `scale * cosine + bias`, `(n, C)`.

        Args:
            features: `(n, E)`, L2-normalised.
            text: `(C, E)`, L2-normalised; the zero-shot text features by default.
        """
        return self.scale * features @ (self.text if text is None else text).T + self.bias

    def as_head(self, text: Tensor) -> TextHead:
        """Returns text features `(C, E)` as a head of the model's scale and bias."""
        return TextHead(F.normalize(text.detach().float(), dim=1).cpu(), self.scale, self.bias)


def share(method: str, name: str, value: float) -> float:
    """Returns a value that must be a share.

    Raises:
        ConfigError: If it is none.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"{name!r} of method {method!r} must lie between 0 and 1, got {value}")
    return value


def at_least(method: str, name: str, value: float, least: float) -> float:
    """Returns a value that must not be below another.

    Raises:
        ConfigError: If it is.
    """
    if value < least:
        raise ConfigError(f"{name!r} of method {method!r} must be at least {least}, got {value}")
    return value
