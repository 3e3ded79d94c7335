"""Auxiliary classes: names beside the task's that give a model's logits more directions.

The names come from a word list: WordNet's nouns with images in ImageNet-21k, which ship with timm, or the user's own. A
task class is never among them, nor a synonym of one; and since the draw depends on class names, word list, strategy and
seed alone, two models get the same names.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from vimlight.errors import ConfigError, DataError, nearest
from vimlight.files.text import read_lines
from vimlight.registry import Registry

__all__ = ["STRATEGIES", "WORDS", "draw_vocabulary", "eligible", "normal_form", "word_list"]

WORDS = "imagenet21k"
Strategy = Callable[..., Sequence[int]]
Provider = Callable[[Sequence[str]], Tensor]
STRATEGIES: Registry[Strategy] = Registry("vocabulary strategy", "vimlight.transmiter.models.vocabulary", "STRATEGIES")
"""Each takes the candidates, how many to choose and a generator, and beyond that, by keyword, what it asks for of
`class_features` `(C, E)`, `text_features` `(K, E)` of the K candidates, both L2-normalised, and `logits` `(n, K)` of
some images; it returns the indices of its choice."""


@STRATEGIES.register("random")
def random(candidates: Sequence[str], count: int, generator: torch.Generator) -> Sequence[int]:
    """Draws at random; a smaller draw with the same seed is the beginning of a larger one."""
    return torch.randperm(len(candidates), generator=generator)[:count].tolist()


@STRATEGIES.register("farthest_point")
def farthest_point(
    candidates: Sequence[str],
    count: int,
    generator: torch.Generator,
    *,
    class_features: Tensor,
    text_features: Tensor,
) -> Sequence[int]:
    """Takes, one after the other, the name that is least like all task classes and all names taken before it."""
    likeness = (text_features @ class_features.T).amax(dim=1)
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(likeness.argmin()))
        likeness = torch.maximum(likeness, text_features @ text_features[chosen[-1]])
        likeness[chosen[-1]] = torch.inf
    return chosen


@STRATEGIES.register("hard")
def hard(
    candidates: Sequence[str],
    count: int,
    generator: torch.Generator,
    *,
    class_features: Tensor,
    text_features: Tensor,
) -> Sequence[int]:
    """Takes the names most like the task classes: the nearest of each class, then the second of each, and so on."""
    ranks = (text_features @ class_features.T).argsort(dim=0, descending=True, stable=True)
    return list(dict.fromkeys(ranks.flatten().tolist()))[:count]


@STRATEGIES.register("highest_spread")
def highest_spread(
    candidates: Sequence[str], count: int, generator: torch.Generator, *, logits: Tensor
) -> Sequence[int]:
    """Takes the names whose logits vary most from image to image."""
    return logits.std(dim=0).argsort(descending=True, stable=True)[:count].tolist()


def draw_vocabulary(
    class_names: Sequence[str],
    count: int,
    *,
    strategy: str = "random",
    seed: int = 0,
    words: str | Path = WORDS,
    providers: Mapping[str, Provider] | None = None,
) -> list[str]:
    """Draws auxiliary class names.

    Args:
        class_names: The task classes.
        count: Number of names.
        strategy: A name of `STRATEGIES`.
        seed: Seed of the strategies that draw at random.
        words: `"imagenet21k"`, or a text file; see `word_list`.
        providers: Functions from names to `class_features`, `text_features` or `logits`, for strategies that need them.

    Returns:
        The names, in the order in which they were chosen.

    Raises:
        UnknownNameError: If there is no such strategy.
        ConfigError: If the list has too few names, or the strategy needs what is not at hand.
        DataError: If the word list cannot be read.
    """
    choose = STRATEGIES[strategy]
    candidates = eligible(word_list(words), class_names)
    if not 0 <= count <= len(candidates):
        raise ConfigError(
            f"{count} auxiliary names are asked for, but the word list {str(words)!r} has {len(candidates)} that are "
            "no task class and no synonym of one; ask for fewer"
        )
    needed = _needed(strategy, choose, providers or {}, class_names, candidates) if count else {}
    generator = torch.Generator().manual_seed(seed)
    return [candidates[index] for index in choose(candidates, count, generator, **needed)] if count else []


def word_list(words: str | Path = WORDS) -> list[tuple[str, ...]]:
    """Returns the entries of a word list; each is a name and its synonyms.

    Args:
        words: `"imagenet21k"`, or a text file with one entry a line, synonyms separated by commas.

    Raises:
        DataError: If there is no such list, or it is empty or no text.
    """
    if words == WORDS:
        return list(_imagenet21k())
    path = Path(words).expanduser()
    if not path.is_file():
        siblings = [WORDS, *(file.name for file in path.parent.glob("*.txt"))]
        close = nearest(path.name, siblings, 1)
        raise DataError(
            f"word list {str(words)!r} does not exist; "
            + (f"did you mean {close[0]!r}?" if close else f"give {WORDS!r} or a text file with one name a line")
        )
    entries = _entries(read_lines(path, DataError))
    if not entries:
        raise DataError(f"word list {path} is empty; it should have one name a line")
    return entries


@lru_cache(maxsize=1)
def _imagenet21k() -> list[tuple[str, ...]]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-21k")
    return _entries(info.index_to_description(index) for index in range(info.num_classes()))


def eligible(entries: Iterable[Sequence[str]], class_names: Sequence[str]) -> list[str]:
    """Returns the first names of entries that are no task class and no synonym of one, each once, sorted.

    An entry is left out if any of its synonyms is a task class, and so is every name that such an entry lists: with the
    task class "sneaker", the entry "gym shoe, sneaker, tennis shoe" also rules out "tennis shoe". Case, underscores,
    hyphens, plurals and remarks in brackets make no difference.

    Args:
        entries: Names with their synonyms.
        class_names: The task classes; the parts of one like "T-shirt/top" count too.
    """
    known = [(entry[0], {normal_form(name) for name in entry}) for entry in entries]
    taken = {normal_form(part) for name in class_names for part in (name, *re.split(r"[/,]", name))}
    related = taken.union(*(forms for _, forms in known if forms & taken))
    free = {normal_form(name): name for name, forms in reversed(known) if not forms & taken}
    return sorted(name for form, name in free.items() if form and form not in related)


@lru_cache(maxsize=1 << 17)
def normal_form(name: str) -> str:
    """Returns what names have in common that differ in case, underscores, hyphens, plurals or remarks in brackets."""
    text = re.sub(r"\([^)]*\)", " ", name.casefold())
    return " ".join(_singular(word) for word in re.sub(r"[\W_]+", " ", text).split())


def _singular(word: str) -> str:
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("zzes", "zz")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _entries(lines: Iterable[str]) -> list[tuple[str, ...]]:
    split = (tuple(name.strip() for name in line.split(",") if name.strip()) for line in lines)
    return [entry for entry in split if entry]


def _needed(
    strategy: str,
    choose: Strategy,
    providers: Mapping[str, Provider],
    class_names: Sequence[str],
    candidates: Sequence[str],
) -> dict[str, Tensor]:
    parameters = inspect.signature(choose).parameters.values()
    wanted = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name in wanted:
        if name not in providers:
            raise ConfigError(
                f"vocabulary strategy {strategy!r} needs {name.replace('_', ' ')}, which are not at hand here; use it "
                "with `vimlight cache head`, or choose 'random'"
            )
    return {name: providers[name](class_names if name == "class_features" else candidates) for name in wanted}
