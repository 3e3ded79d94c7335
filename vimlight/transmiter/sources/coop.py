"""CoOp: learned context tokens in front of every class name; the encoders stay as they are.

Zhou et al., IJCV 2022 (arXiv 2109.01134).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from vimlight.errors import ConfigError
from vimlight.transmiter.cache import TextHead
from vimlight.transmiter.models.image_text import ImageTextModel
from vimlight.transmiter.models.texts import check_names, cut_texts, num_tokens, prompts_of
from vimlight.transmiter.sources import TUNINGS, Start
from vimlight.transmiter.sources.base import Tuning, at_least

__all__ = ["CoOp"]

# What stands behind the context.
_PROMPT = ("{}.",)


@TUNINGS.register("coop")
class CoOp(Tuning):
    """Trains the text side alone, so that cached image features serve.

    Args:
        start: What it starts from.
        context: Number of context tokens, drawn at random at the start.
        words: Words to start from instead; their number of tokens is that of the context.

    Raises:
        CacheError: If the cache does not say which model it was built with.
        ConfigError: If the text encoder is of another kind, cannot tell two class names apart, or context and class
            name do not fit into it.
    """

    learning_rate = 2e-3
    tokens: Tensor

    def __init__(self, start: Start, context: int = 4, words: str = "") -> None:
        super().__init__(start)
        loaded = start.load_model()
        self.model = loaded.model
        self.embedding = embedding = _token_embedding(loaded)
        self._first = _first(loaded)
        if words:
            vectors = embedding.weight[_words(loaded, words, self._first)].detach().clone()
        else:
            shape = (int(at_least("coop", "context", context, 1)), embedding.embedding_dim)
            vectors = 0.02 * torch.randn(shape, generator=start.generator)
        self.learned = nn.ParameterDict({"context": nn.Parameter(vectors)})
        tokens = _with_room(loaded, start.cache.class_names, len(vectors), self._first)
        self.register_buffer("tokens", tokens, persistent=False)
        self._text: Tensor | None = None

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Makes the published optimiser."""
        return SGD(parameters, lr=self.learning_rate, momentum=0.9, weight_decay=5e-4)

    def train(self, mode: bool = True) -> CoOp:
        """Leaves the model in eval mode."""
        super().train(mode)
        self.model.eval()
        self._text = None
        return self

    def tuned_text(self) -> Tensor:
        """Returns the text features `(C, E)`, L2-normalised; computed once while nothing is trained."""
        if self._text is not None and not torch.is_grad_enabled():
            return self._text
        handle = self.embedding.register_forward_hook(self._insert)
        try:
            text = F.normalize(self.model.encode_text(self.tokens).float(), dim=1)  # type: ignore[operator]
        finally:
            handle.remove()
        self._text = None if torch.is_grad_enabled() else text
        return text

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of features `(n, E)`."""
        return self.head_logits(inputs, self.tuned_text())

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns the features as they are."""
        return inputs

    @torch.no_grad()
    def head(self) -> TextHead:
        """Returns the tuned head."""
        return self.as_head(self.tuned_text())

    def _insert(self, module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        """Puts the context into its places, `(C, L, width)`."""
        context = self.learned["context"].to(embedded.dtype)  # type: ignore[index]
        last = self._first + len(context)
        parts = [embedded[:, : self._first], context.expand(len(embedded), -1, -1), embedded[:, last:]]
        return torch.cat(parts, dim=1)


def _token_embedding(loaded: ImageTextModel) -> nn.Embedding:
    for path, module in loaded.model.named_modules():
        if path.rpartition(".")[2] in ("token_embedding", "word_embeddings") and isinstance(module, nn.Embedding):
            return module
    raise ConfigError(f"the text encoder of {loaded.name!r} has no token embedding that coop knows; use clip_lora")


def _first(loaded: ImageTextModel) -> int:
    """Returns the place of a text's first word, behind the token for the start where there is one."""
    one, other = loaded.tokenizer(["a", "x"])
    return int((one != other).int().argmax())


def _words(loaded: ImageTextModel, words: str, first: int) -> Tensor:
    """Returns the tokens of some words, without those for start and end."""
    count, without = num_tokens(loaded.tokenizer, [words, ""]).tolist()
    return loaded.tokenizer([words])[0, first : first + count - without]


def _with_room(loaded: ImageTextModel, names: Sequence[str], count: int, first: int) -> Tensor:
    """Returns the tokens of class names with room for the context before them, `(C, L)`.

    Raises:
        ConfigError: If a name does not fit behind the context.
    """
    check_names(loaded, (names, _PROMPT))
    texts, length = prompts_of(names, _PROMPT), loaded.tokenizer(["a"]).shape[1]
    left = length - count
    for name, cut in zip(names, cut_texts(loaded.tokenizer, texts, left) if left > 2 else [True], strict=False):
        if cut:
            raise ConfigError(
                f"a context of {count} tokens leaves no room for the class {name!r}: the text encoder of "
                f"{loaded.name!r} takes {length} tokens; choose a shorter context"
            )
    tokens = loaded.tokenizer(texts, context_length=left)
    # Encoders that leave out padding look at the tokens: a word holds the place.
    room = loaded.tokenizer(["x"])[:, first : first + 1].expand(len(tokens), count)
    return torch.cat([tokens[:, :first], room, tokens[:, first:]], dim=1)
