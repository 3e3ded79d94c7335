"""What a text encoder gets to read of class names: whole texts, and no two names alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vimlight.errors import ConfigError, shown
from vimlight.transmiter.models.image_text import ImageTextModel

__all__ = ["check_names", "cut_texts", "num_tokens", "prompts_of"]


def prompts_of(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Returns all prompts of the first name, then those of the second; underscores of names stand for spaces.

    Args:
        names: C class names.
        templates: T prompts with `{}`.
    """
    return [template.replace("{}", name.replace("_", " ")) for name in names for template in templates]


Group = tuple[Sequence[str], Sequence[str]]
"""Class names, and the templates of their prompts."""


def check_names(model: ImageTextModel, classes: Group, auxiliary: Group = ((), ()), *, batch_size: int = 4096) -> None:
    """Refuses classes that a model cannot tell apart, and warns of prompts that are longer than its context.

    Auxiliary names are given to several models, each of which reads them in its own way, and nothing is predicted as
    one of them: those that are read as another name are warned of, and those that are cut are good enough.

    Args:
        model: The model.
        classes: Names of the classes, and their templates.
        auxiliary: Auxiliary names, and theirs.
        batch_size: Prompts at a time.

    Raises:
        ConfigError: If two classes, or a class and no name at all, become the same tokens in every prompt.
    """
    seen: dict[bytes, str] = {}
    cut: list[str] = []
    for group in (classes, auxiliary):
        twins: list[str] = []
        for name, tokens, is_cut in _read(model, group, seen, batch_size):
            first = seen.setdefault(tokens, name)
            if first != name or not name:
                if group is classes:
                    raise _twins(model, first, name)
                twins.append(name)
            if is_cut and group is classes:
                cut.append(name)
        if twins:
            warnings.warn(f"the text encoder of {model.name!r} reads as another name: {_some(twins)}", stacklevel=2)
    if cut:
        warnings.warn(
            f"the text encoder of {model.name!r} reads {_context(model)} tokens and not the end of some prompts of the "
            f"classes {_some(cut)}; choose shorter names or templates",
            stacklevel=2,
        )


def _read(
    model: ImageTextModel, group: Group, seen: dict[bytes, str], batch_size: int
) -> Iterator[tuple[str, bytes, bool]]:
    """Yields each name, what its prompts become, and whether one of them is cut; notes what no name becomes."""
    names, templates = group
    if not names:
        return
    seen.setdefault(model.tokenizer(prompts_of([""], templates)).numpy().tobytes(), "")
    step = max(1, batch_size // len(templates))
    for start in range(0, len(names), step):
        some = names[start : start + step]
        prompts = prompts_of(some, templates)
        tokens = [each.numpy().tobytes() for each in model.tokenizer(prompts).chunk(len(some))]
        cut = cut_texts(model.tokenizer, prompts).view(len(some), -1).any(dim=1)
        yield from zip(some, tokens, cut.tolist(), strict=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:5])) + (f", ... {len(names)} in all" if len(names) > 5 else "")


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


def _twins(model: ImageTextModel, first: str, second: str) -> ConfigError:
    if not first:
        return ConfigError(
            f"the text encoder of {model.name!r} reads nothing of the class name {second!r}: its prompts are those "
            "without a name; give the class another name"
        )
    return ConfigError(
        f"the text encoder of {model.name!r} cannot tell the class names {first!r} and {second!r} apart: their prompts "
        f"are the same tokens (of at most {_context(model)}); give one of them another or a shorter name"
    )


def _context(model: ImageTextModel) -> int:
    return int(model.tokenizer(["a"]).shape[1])
