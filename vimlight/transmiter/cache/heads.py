"""The text side of a cache: which auxiliary classes it has, and the features of all its class names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.errors import CacheError, ConfigError, DataError
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.tables import read_names
from vimlight.transmiter.cache.text_head import TextHead
from vimlight.transmiter.models.image_text import ImageTextModel, load_model
from vimlight.transmiter.models.templates import class_features, templates_of
from vimlight.transmiter.models.texts import check_names
from vimlight.transmiter.models.vocabulary import WORDS, draw_vocabulary

__all__ = ["Vocabulary", "auxiliary_names", "encoded_head", "model_of", "text_head"]


@dataclass(frozen=True)
class Vocabulary:
    """Which auxiliary classes a cache gets.

    Attributes:
        num_logits: Number of columns in all, task classes included; without it there are no auxiliary classes.
        strategy: How the names are drawn: `"random"`, `"farthest_point"`, `"hard"` or `"highest_spread"`.
        seed: Seed of the draw.
        words: `"imagenet21k"`, or a text file with one name a line, synonyms behind commas.
        names: Instead of a draw: a text file with the names, one a line, or the directory of a cache that has them.
    """

    num_logits: int | None = None
    strategy: str = "random"
    seed: int = 0
    words: str = WORDS
    names: str | None = None


def model_of(cache: LogitCache, device: torch.device | str = "cpu") -> ImageTextModel:
    """Loads the model that a cache was built with.

    Args:
        cache: The cache.
        device: Where the model goes.

    Raises:
        CacheError: If the manifest does not say how, or the weights are others by now.
        VimlightError: As `load_model` does.
    """
    arguments = dict(cache.manifest.model_arguments)
    precision = arguments.pop("precision", "32")
    if not arguments:
        raise CacheError(
            f"cache {str(cache.path)!r} does not say how its model {cache.model!r} is loaded, so class names cannot be "
            "encoded; give the text features of the new classes with --head FILE"
        )
    model = load_model(**arguments)
    if model.weights != cache.manifest.weights:
        raise CacheError(
            f"cache {str(cache.path)!r} was built with other weights of {cache.model!r}: SHA-256 "
            f"{cache.manifest.weights[:12]}..., but what is loaded now has {model.weights[:12]}..."
        )
    return model.to(device, precision)


def encoded_head(
    cache: LogitCache,
    class_names: Sequence[str],
    vocabulary: Vocabulary | None = None,
    templates: str | Sequence[str] | None = None,
    aux_templates: str | Sequence[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[TextHead, dict[str, Any]]:
    """Encodes other class names for the features of a cache, with the text tower of its own model.

    Args:
        cache: The cache.
        class_names: The task classes.
        vocabulary: How auxiliary classes are chosen; those of the cache by default.
        templates: Prompts; by default those of the cache.
        aux_templates: Prompts of auxiliary names; by default `templates`, or where there are none those of the cache.
        device: Where to encode them.
        progress: Whether to show progress bars.

    Returns:
        The head, and the entries of the manifest that go with it.

    Raises:
        CacheError: If the model cannot be loaded again, or the cache does not know its templates.
        ConfigError: If a strategy or number does not fit.
    """
    model = model_of(cache, device)
    prompts = _prompts(cache, templates, "templates")
    aux_prompts = _prompts(cache, templates if aux_templates is None else aux_templates, "aux_templates")
    aux_names = list(cache.aux_names)
    text = {"templates": prompts, "aux_templates": aux_prompts}
    entries: dict[str, Any] = {"text": text, "vocabulary": cache.manifest.vocabulary}
    if vocabulary is not None:
        aux_names = auxiliary_names(vocabulary, class_names, model, aux_prompts, cache=cache, progress=progress)
        entries["vocabulary"] = dataclasses.asdict(vocabulary)
    entries["aux_names"] = tuple(aux_names)
    manifest = cache.manifest.replace(class_names=tuple(class_names), **entries)
    return text_head(model, manifest, progress=progress), entries


def _prompts(cache: LogitCache, templates: str | Sequence[str] | None, key: str) -> list[str]:
    if templates is not None:
        # A command line gives a list even for the name of a set.
        one = len(templates) == 1 and not isinstance(templates, str)
        return templates_of(templates[0] if one else templates)
    if key not in cache.manifest.text:
        raise CacheError(f"cache {str(cache.path)!r} does not say which templates it was made with; give --templates")
    return list(cache.manifest.text[key])


def text_head(model: ImageTextModel, manifest: Manifest, *, progress: bool = False) -> TextHead:
    """Encodes the class names of a manifest by its templates.

    Raises:
        ConfigError: If the model cannot tell two classes apart.
    """
    names = ((manifest.class_names, "templates"), (manifest.aux_names, "aux_templates"))
    classes, auxiliary = ((some, manifest.text[key] if some else ()) for some, key in names)
    check_names(model, classes, auxiliary)
    parts = [
        class_features(model, *group, progress=progress, check=False) for group in (classes, auxiliary) if group[0]
    ]
    return TextHead(torch.cat(parts), model.scale, model.bias)


def auxiliary_names(
    vocabulary: Vocabulary,
    class_names: Sequence[str],
    model: ImageTextModel | None,
    templates: Sequence[str],
    *,
    cache: LogitCache | None = None,
    progress: bool = False,
) -> list[str]:
    """Draws or reads the auxiliary names of a cache.

    Args:
        vocabulary: How.
        class_names: The task classes.
        model: The model whose text features a strategy may need.
        templates: Prompts of the names.
        cache: The images whose logits a strategy may need.
        progress: Whether to show progress bars.

    Raises:
        ConfigError: If the numbers do not fit, or a strategy needs what is not at hand.
        DataError: If a file of names cannot be read.
    """
    if vocabulary.names is not None:
        return _given_names(vocabulary.names, vocabulary.num_logits, len(class_names))
    if vocabulary.num_logits is None:
        return []
    count = vocabulary.num_logits - len(class_names)
    if count < 0:
        raise ConfigError(f"num_logits is {vocabulary.num_logits}, but there are {len(class_names)} task classes")

    def features(names: Sequence[str]) -> Tensor:
        assert model is not None
        # Most candidates are not chosen; those that are meet their check with the head.
        return class_features(model, names, templates, progress=progress, check=False)

    providers = {"class_features": features, "text_features": features} if model else {}
    if model and cache is not None:
        providers["logits"] = lambda names: _sample(cache) @ features(names).T
    return draw_vocabulary(
        class_names,
        count,
        strategy=vocabulary.strategy,
        seed=vocabulary.seed,
        words=vocabulary.words,
        providers=providers,
    )


def _given_names(where: str, num_logits: int | None, num_classes: int) -> list[str]:
    path = Path(where).expanduser()
    if not path.exists():
        raise DataError(f"vocabulary names {where!r} are neither a text file nor a cache")
    names = list(LogitCache.open(path).aux_names) if path.is_dir() else read_names(path)
    if num_logits not in (None, num_classes + len(names)):
        raise ConfigError(
            f"num_logits is {num_logits}, but {num_classes} task classes and the {len(names)} names of {where!r} make "
            f"{num_classes + len(names)}; leave one of them out"
        )
    return names


def _sample(cache: LogitCache, limit: int = 1024) -> Tensor:
    """Returns features of at most so many images, evenly spread over the cache."""
    step = max(1, -(-len(cache) // limit))
    return cache.features(slice(None, None, step))
