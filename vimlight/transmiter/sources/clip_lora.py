"""CLIP-LoRA: low-rank changes of queries, keys and values in all layers of both encoders.

Zanella and Ben Ayed, CVPR Workshops 2024 (arXiv 2405.18541).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from vimlight.errors import ConfigError
from vimlight.transmiter.cache import TextHead
from vimlight.transmiter.models.texts import check_names, prompts_of
from vimlight.transmiter.sources import TUNINGS, Start
from vimlight.transmiter.sources.base import Tuning, at_least, share

__all__ = ["CLIPLoRA", "LowRank", "attention_weights"]

# How many of queries, keys and values a linear layer of that name makes.
_LAYERS = {
    "qkv": 3,
    "kv": 2,
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "q", "k", "v", "query", "key", "value"), 1),
}
_MATRICES = {"in_proj_weight": 3, "q_proj_weight": 1, "k_proj_weight": 1, "v_proj_weight": 1}


class LowRank(nn.Module):
    """Adds a low-rank matrix to a weight, one for each of the parts that are stacked in it; zero at the start.

    Args:
        shape: Shape of the weight, `(P * O, I)`.
        parts: Number of parts P.
        rank: Rank of each.
        alpha: The product's factor is `alpha / rank`.
        dropout: Probability that an input is left out of the change; drawn once a step, for all images alike.
        generator: Source of randomness for the start.
    """

    def __init__(
        self, shape: torch.Size, parts: int, rank: int, alpha: float, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(parts, rank, shape[1]))
        self.up = nn.Parameter(torch.zeros(parts, shape[0] // parts, rank))
        for part in self.down:
            nn.init.kaiming_uniform_(part, a=5**0.5, generator=generator)
        self.factor, self.dropout = alpha / rank, dropout

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the changed weight, of the same shape."""
        kept = F.dropout(torch.ones_like(self.down[0, 0]), self.dropout, self.training)
        change = self.up @ (self.down * kept)
        return weight + self.factor * change.flatten(0, 1).to(weight.dtype)


@TUNINGS.register("clip_lora")
class CLIPLoRA(Tuning):
    """Trains the model itself, from images; its text prompts are the cache's first template.

    Args:
        start: What it starts from.
        rank: Rank of the changes.
        alpha: Their factor is `alpha / rank`.
        dropout: Probability that an input is left out of a change.

    Raises:
        CacheError: If the cache does not say which model it was built with.
        ConfigError: If a number is out of range, an encoder has no attention, or cannot tell two class names apart.
    """

    reads = "images"
    learning_rate = 2e-4

    def __init__(self, start: Start, rank: int = 2, alpha: float = 1.0, dropout: float = 0.25) -> None:
        super().__init__(start)
        rank, dropout = int(at_least("clip_lora", "rank", rank, 1)), share("clip_lora", "dropout", dropout)
        loaded = start.load_model()
        self.model = loaded.model
        generator, changes = start.generator, []
        for module, name, parts in attention_weights(self.model, loaded.name):
            change = LowRank(getattr(module, name).shape, parts, rank, alpha, dropout, generator)
            parametrize.register_parametrization(module, name, change)
            changes.append(change)
        self.learned = nn.ModuleList(changes)
        templates = start.cache.manifest.text["templates"][:1]
        check_names(loaded, (start.cache.class_names, templates))
        prompts = prompts_of(start.cache.class_names, templates)
        self.register_buffer("tokens", loaded.tokenizer(prompts), persistent=False)
        self._text: Tensor | None = None

    tokens: Tensor

    def train(self, mode: bool = True) -> CLIPLoRA:
        """Switches the dropout of the changes alone; the model stays in eval mode."""
        super().train(mode)
        self.model.eval()
        self.learned.train(mode)
        self._text = None
        return self

    def tuned_text(self) -> Tensor:
        """Returns the text features `(C, E)`, L2-normalised; computed once while nothing is trained."""
        if self._text is not None and not torch.is_grad_enabled():
            return self._text
        text = F.normalize(self.model.encode_text(self.tokens).float(), dim=1)  # type: ignore[operator]
        self._text = None if torch.is_grad_enabled() else text
        return text

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns features `(n, E)` of images, L2-normalised."""
        return F.normalize(self.model.encode_image(inputs).float(), dim=1)  # type: ignore[operator]

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of prepared images `(n, 3, H, W)`."""
        return self.head_logits(self.rows(inputs), self.tuned_text())

    @torch.no_grad()
    def head(self) -> TextHead:
        """Returns the tuned head."""
        return self.as_head(self.tuned_text())


def attention_weights(model: nn.Module, name: str) -> list[tuple[nn.Module, str, int]]:
    """Finds the weights that make queries, keys and values.

    Args:
        model: An image-text model with its image encoder under `visual`.
        name: Its name, for the message.

    Returns:
        Modules, the names of their weights, and how many of the three are stacked in each.

    Raises:
        ConfigError: If one of the encoders has none.
    """
    found: dict[str, list[tuple[nn.Module, str, int]]] = {"image": [], "text": []}
    for path, module in model.named_modules():
        found["image" if path.startswith("visual") else "text"].extend(_weights_of(path, module))
    for encoder, weights in found.items():
        if not weights:
            raise ConfigError(f"model {name!r} has no attention in its {encoder} encoder; clip_lora needs transformers")
    return [weight for weights in found.values() for weight in weights]


def _weights_of(path: str, module: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
    parts = _LAYERS.get(path.rpartition(".")[2])
    if parts is not None and isinstance(module, nn.Linear):
        yield module, "weight", parts
    for name, stacked in _MATRICES.items():
        if isinstance(module._parameters.get(name), nn.Parameter):
            yield module, name, stacked
