"""What a text encoder gets to read of class names: whole texts, and no two names alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vimlight.errors import ConfigError
from vimlight.transmiter.models import ImageTextModel

__all__ = ["check_names", "cut_texts", "num_tokens", "prompts_of"]


def prompts_of(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Returns all prompts of the first name, then those of the second; underscores of names stand for spaces.

    Args:
        names: C class names.
        templates: T prompts with `{}`.
    """
    return [template.replace("{}", name.replace("_", " ")) for name in names for template in templates]


def check_names(model: ImageTextModel, *groups: tuple[Sequence[str], Sequence[str]], batch_size: int = 4096) -> None:
    """Refuses names that a model cannot tell apart, and warns of prompts that are longer than its context.

    Args:
        model: The model.
        *groups: Class names, and the templates of their prompts; names are compared across groups.
        batch_size: Prompts at a time.

    Raises:
        ConfigError: If two names, or a name and no name at all, become the same tokens in every prompt.
    """
    seen: dict[bytes, str] = {}
    cut: list[str] = []
    for names, templates in groups:
        if not names:
            continue
        seen.setdefault(model.tokenizer(prompts_of([""], templates)).numpy().tobytes(), "")
        step = max(1, batch_size // len(templates))
        for start in range(0, len(names), step):
            some = names[start : start + step]
            prompts = prompts_of(some, templates)
            for name, tokens in zip(some, model.tokenizer(prompts).chunk(len(some)), strict=True):
                _refuse_twins(model, seen.setdefault(tokens.numpy().tobytes(), name), name)
            flags = cut_texts(model.tokenizer, prompts).view(len(some), -1).any(dim=1).tolist()
            cut.extend(name for name, flag in zip(some, flags, strict=True) if flag)
    if cut:
        shown = ", ".join(map(repr, cut[:5])) + (f", ... {len(cut)} in all" if len(cut) > 5 else "")
        warnings.warn(
            f"the text encoder of {model.name!r} reads {_context(model)} tokens and not the end of some prompts of the "
            f"classes {shown}; choose shorter names or templates",
            stacklevel=2,
        )


def cut_texts(tokenizer: Callable[..., Tensor], texts: Sequence[str], context: int | None = None) -> Tensor:
    """Tells which texts a tokeniser shortens, `(N,)` bool: with room for one more token they have one more.

    A tokeniser of one argument, which cannot be asked for more room, is taken to shorten nothing.

    Args:
        tokenizer: From texts to tokens `(N, L)`, padded to one length.
        texts: N texts.
        context: Number of tokens that there is room for; the tokeniser's own by default.
    """
    if getattr(tokenizer, "context_length", None) is None:
        return torch.zeros(len(texts), dtype=torch.bool)
    room = int(tokenizer.context_length if context is None else context)  # type: ignore[attr-defined]
    return num_tokens(tokenizer, texts, room) < num_tokens(tokenizer, texts, room + 1)


def num_tokens(tokenizer: Callable[..., Tensor], texts: Sequence[str], context: int | None = None) -> Tensor:
    """Returns the numbers of tokens that are no padding, `(N,)` int64.

    Args:
        tokenizer: From texts to tokens `(N, L)`, with a `context_length`.
        texts: N texts.
        context: The length L; the tokeniser's own by default.
    """
    # What fills most of a row of one short word is the padding, whichever number that has.
    padding = tokenizer(["a"], context_length=max(16, context or 0)).mode().values
    return (tokenizer(list(texts), context_length=context) != padding).sum(dim=1)


def _refuse_twins(model: ImageTextModel, first: str, second: str) -> None:
    if first == second and second:
        return
    if not first:
        raise ConfigError(
            f"the text encoder of {model.name!r} reads nothing of the class name {second!r}: its prompts are those "
            "without a name; give the class another name"
        )
    raise ConfigError(
        f"the text encoder of {model.name!r} cannot tell the class names {first!r} and {second!r} apart: their prompts "
        f"are the same tokens (of at most {_context(model)}); give one of them another or a shorter name"
    )


def _context(model: ImageTextModel) -> int:
    return int(model.tokenizer(["a"]).shape[1])
