"""CLIP-Adapter: a small network on the image features, mixed with the features themselves.

Gao et al., IJCV 2024 (arXiv 2110.04544).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.transmiter.cache import TextHead
from vimlight.transmiter.sources import TUNINGS, Start, Tuning
from vimlight.transmiter.sources.base import at_least, share

__all__ = ["CLIPAdapter"]


@TUNINGS.register("clip_adapter")
class CLIPAdapter(Tuning):
    """`f' = alpha MLP(f) + (1 - alpha) f`; two layers without biases, each followed by a ReLU.

    Args:
        start: What it starts from.
        alpha: Share of the network.
        reduction: How much narrower its middle is.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, start: Start, alpha: float = 0.2, reduction: int = 4) -> None:
        super().__init__(start)
        width = start.head.weights.shape[1]
        self.alpha = share("clip_adapter", "alpha", alpha)
        middle = max(1, width // int(at_least("clip_adapter", "reduction", reduction, 1)))
        shapes = (width, middle), (middle, width)
        layers = [nn.utils.skip_init(nn.Linear, *shape, bias=False) for shape in shapes]
        generator = start.generator
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        self.learned = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU())

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns adapted features `(n, E)`, L2-normalised."""
        return F.normalize(self.alpha * self.learned(inputs) + (1 - self.alpha) * inputs, dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of features `(n, E)`."""
        return self.head_logits(self.rows(inputs))

    def head(self) -> TextHead:
        """Returns the zero-shot head."""
        return self.as_head(self.text)
