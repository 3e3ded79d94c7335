"""What every format defines, and what those that hold single modules share."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from vimlight.backbone import Backbone, build_backbone
from vimlight.errors import CheckpointError, ConfigError
from vimlight.files.yaml_text import yaml_of
from vimlight.plugins import Plugin
from vimlight.zoo import Card, Zoo

__all__ = ["Fact", "Format", "Imported", "add_module", "affine_head", "described"]


class Fact(NamedTuple):
    """One line of what an import or an export did.

    Attributes:
        part: What was read or written, such as `"backbone"`.
        text: What is to be said of it.
        file: Where it is now.
    """

    part: str
    text: str
    file: Path


class Format(ABC):
    """A format that a zoo can be read from and, unless it has no `export_zoo`, written to.

    Attributes:
        suffix: How the format's files end; nothing for folders.
        text: What the format is, for the command's help.
    """

    suffix: ClassVar[str]
    text: ClassVar[str]

    @abstractmethod
    def import_zoo(self, path: Path, out: Path, *_: Any, **options: Any) -> list[Fact]:
        """Reads a file of the format into a zoo; what it writes appears whole or not at all.

        Args:
            path: The file or folder.
            out: Directory of the zoo; formats that bring a backbone make a new one.
            **options: What the file does not say; a subclass names its own.

        Returns:
            What was found.

        Raises:
            VimlightError: If the file is not as it should be, or what it would become exists.
        """

    def export_zoo(self, zoo: Path, names: Sequence[str], to: Path, *_: Any, **options: Any) -> list[Fact]:
        """Writes modules of a zoo, with the backbone and the tasks kept beside them, to a new file of the format.

        Args:
            zoo: Directory of the zoo.
            names: Which modules; all if empty.
            to: The new file or folder.
            **options: What the zoo does not say; a subclass names its own.

        Returns:
            What was written.

        Raises:
            VimlightError: If the zoo holds what the format cannot, or `to` exists.
        """
        raise ConfigError(f"this format can only be read: {self.text}")

    @classmethod
    def options(cls, way: Literal["import", "export"]) -> list[str]:
        """Returns the names of the options that `import_zoo` or `export_zoo` understands."""
        method, fixed = (cls.import_zoo, 3) if way == "import" else (cls.export_zoo, 4)
        named = list(inspect.signature(method).parameters.values())[fixed:]
        return [option.name for option in named if option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)]


class Imported(NamedTuple):
    """A module that was read from another format.

    Attributes:
        plugin: The module.
        card: What is known of it.
        head: The tensors of its head, if there was one.
    """

    plugin: Plugin
    card: Card | Mapping[str, Any]
    head: dict[str, Tensor] | None


def add_module(out: Path, name: str, backbone: str | None, read: Callable[[Backbone], Imported]) -> list[Fact]:
    """Reads a single module and adds it to a zoo, new or not.

    Args:
        out: Directory of the zoo.
        name: The module's name there.
        backbone: The backbone: its name, or the arguments of `create_backbone` as YAML.
        read: From the backbone to the module.

    Returns:
        What was added.

    Raises:
        ConfigError: If no backbone is named, or what names it is no YAML.
        ZooError: If the name is taken or not allowed.
    """
    if backbone is None:
        raise ConfigError("the file does not say which backbone it belongs to; name it with --backbone NAME")
    zoo = Zoo(out)
    zoo.check_new(name)
    built = build_backbone(described(backbone))
    plugin, card, head = read(built)
    zoo.add(name, plugin, card, head)
    with_head = ", with its classifier as head" if head else ""
    return [Fact(name, f"{plugin.kind} at {len(plugin.sites)} places of {built.name}{with_head}", out)]


def described(backbone: str) -> str | dict[str, Any]:
    """Returns what an option says of a backbone: its name, or arguments of `create_backbone`.

    Args:
        backbone: The option's text.

    Raises:
        ConfigError: If it is no YAML.
    """
    asked = yaml_of(backbone, f"--backbone {backbone!r}", ConfigError)
    return asked if isinstance(asked, dict) else backbone


def affine_head(tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Returns a linear classifier of a backbone's last feature as the tensors of an `AffineHead`.

    Args:
        tensors: `weight` `(C, D)` and `bias` `(C,)`.
        backbone: The backbone.

    Raises:
        CheckpointError: If they are no such classifier.
    """
    width = backbone.num_features("last")
    weight = tensors.get("weight")
    if set(tensors) != {"weight", "bias"} or weight is None or weight.shape != (len(tensors["bias"]), width):
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise CheckpointError(f"the classifier is no linear layer of {width} features: it has {shapes}")
    return {**tensors, "mean": torch.zeros(width), "scale": torch.ones(width)}
