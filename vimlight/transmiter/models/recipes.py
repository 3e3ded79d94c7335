"""What the weights of an image-text model want besides their tensors: an activation, and images prepared their way.

A weight file rarely tells either. open_clip knows both for every published set of weights, by its tag. A file is taken
at its word where it says something, or where a configuration lies beside it; else as what all tags of the model's name
agree on; and where they do not, the tag is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import open_clip

from vimlight.errors import ConfigError, unknown_name
from vimlight.files.json_text import json_object
from vimlight.files.text import read_text
from vimlight.files.weight_file import WeightFile

__all__ = ["Recipe", "recipe_for"]

_CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Recipe:
    """Activation and preprocessing; by default what open_clip trains with.

    Attributes:
        quick_gelu: Whether the activation is QuickGELU; GELU otherwise.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.
        interpolation: `"bicubic"` or `"bilinear"`.
        resize_mode: `"shortest"`, `"squash"` or `"longest"`.
    """

    quick_gelu: bool = False
    mean: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, ...] = open_clip.OPENAI_DATASET_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    @classmethod
    def of(cls, preprocessing: Mapping[str, Any], quick_gelu: Any) -> Recipe:
        """Reads the entries of a configuration of open_clip; what it leaves out is as by default."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "quick_gelu"]
        given: dict[str, Any] = {name: preprocessing[name] for name in names if preprocessing.get(name) is not None}
        for name in {"mean", "std"} & given.keys():
            given[name] = tuple(given[name])
        return cls(bool(quick_gelu), **given)

    def creation(self) -> dict[str, Any]:
        """Returns the arguments of `open_clip.create_model` that make such a model."""
        preprocessing = dataclasses.asdict(self)
        return {"force_quick_gelu": preprocessing.pop("quick_gelu"), "force_preprocess_cfg": preprocessing}

    def said(self, names: Sequence[str]) -> str:
        """Returns some of the entries in words."""
        words = []
        for name in names:
            value = getattr(self, name)
            if name == "quick_gelu":
                words.append("QuickGELU" if value else "GELU")
            else:
                words.append(f"{name} {' '.join(f'{x:.3g}' for x in value) if isinstance(value, tuple) else value}")
        return ", ".join(words)


OPENAI = Recipe(quick_gelu=True)


def recipe_for(name: str, file: WeightFile, tag: str | None = None) -> Recipe:
    """Finds out what the weights in a file want.

    Args:
        name: A model of open_clip.
        file: The file.
        tag: The published weights that the file holds or descends from, where the user says so.

    Raises:
        UnknownNameError: If the name has no such tag.
        ConfigError: If nothing tells, or what tells disagrees.
    """
    if tag is not None:
        found = _of_tag(name, tag)
        _check_word(name, file, found, f"tag: {tag}")
        return found
    told = OPENAI if file.openai else _beside(file)
    if told is None:
        told = _agreed(name, file)
    if _always_quick(name) and not told.quick_gelu:
        told = dataclasses.replace(told, quick_gelu=True)
    _check_word(name, file, told, f"name: {name}")
    return told


def _of_tag(name: str, tag: str) -> Recipe:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise unknown_name(f"tag of {name!r}", tag, tags)
    published = open_clip.get_pretrained_cfg(name, tag)
    return Recipe.of(published, published.get("quick_gelu") or _always_quick(name))


def _always_quick(name: str) -> bool:
    return bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))


def _beside(file: WeightFile) -> Recipe | None:
    """Reads the configuration that lies beside the weights in a repository of open_clip."""
    path = file.path.parent / _CONFIG
    if not path.is_file():
        return None
    config = json_object(read_text(path, ConfigError), str(path), ConfigError)
    try:
        return Recipe.of(config.get("preprocess_cfg", {}), config["model_cfg"].get("quick_gelu"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{_CONFIG} beside {file.path.name} cannot be read ({type(error).__name__}: {error}); "
            "mend it or move it away"
        ) from error


def _agreed(name: str, file: WeightFile) -> Recipe:
    """Returns what the tags agree on.

    A name without published weights has those that people trained themselves, as open_clip trains by default.
    """
    tags: dict[Recipe, list[str]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(name):
        recipe = _of_tag(name, tag)
        if not (file.gelu and recipe.quick_gelu):
            tags.setdefault(recipe, []).append(tag)
    if len(tags) <= 1:
        return next(iter(tags), Recipe(_always_quick(name)))
    names = [field.name for field in dataclasses.fields(Recipe)]
    differing = [field for field in names if len({getattr(recipe, field) for recipe in tags}) > 1]
    choices = " or ".join(f"{recipe.said(differing)} ({_some(of)})" for recipe, of in tags.items())
    quick = f"{name}-quickgelu"
    by_name = f", or name: {quick}" if quick in open_clip.list_models() and "quick_gelu" in differing else ""
    raise ConfigError(
        f"{file.path.name} does not tell which weights of {name!r} it holds, and they want {choices}; "
        f"set tag (model.tag) to those that it is or descends from{by_name}"
    )


def _some(tags: Sequence[str], limit: int = 3) -> str:
    return ", ".join(tags[:limit]) + (f", ... {len(tags)} in all" if len(tags) > limit else "")


def _check_word(name: str, file: WeightFile, recipe: Recipe, setting: str) -> None:
    """Refuses what contradicts the file's own word."""
    if file.openai and recipe != OPENAI:
        differing = [f.name for f in dataclasses.fields(Recipe) if getattr(recipe, f.name) != getattr(OPENAI, f.name)]
        raise ConfigError(
            f"{file.path.name} says that it is OpenAI's, which wants {OPENAI.said(differing)}, but {setting} stands "
            f"for {recipe.said(differing)}; leave the tag out, or set tag: openai"
        )
    if file.gelu and recipe.quick_gelu:
        plain = name.removesuffix("-quickgelu")
        raise ConfigError(
            f"{file.path.name} computes with GELU, but {setting} stands for QuickGELU; "
            + (f"use name: {plain}" if plain != name else "choose the tag of weights with GELU")
        )
