"""The factory of backbones: any model of timm, with weights from wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

import vimlight.embedded  # noqa: F401  (registers the embedded image towers with timm)
from vimlight.backbone.model import Backbone
from vimlight.backbone.preprocessing import Preprocessing
from vimlight.backbone.weights import check_tag, load_weights
from vimlight.errors import BackboneError, ConfigError, nearest, shown, unknown_name
from vimlight.files.hub import hub_or_disk, is_missing, not_there
from vimlight.files.weight_file import first_line

__all__ = ["build_backbone", "create_backbone"]

_REMOTE = ("hf-hub:", "hf_hub:", "local-dir:")


def create_backbone(
    name: str, pretrained: bool = False, checkpoint: str | None = None, **timm_arguments: Any
) -> Backbone:
    """Creates a frozen backbone.

    Args:
        name: A timm model name; `hf-hub:owner/model` and `local-dir:path` are understood as timm does.
        pretrained: Whether timm loads its weights, from the hub or, for embedded models, from this package.
        checkpoint: Weights from a `.safetensors` file, a file of plain tensors, or `package:NAME` for the weight file
            of an installed package; instead of `pretrained`.
        **timm_arguments: Passed on to `timm.create_model`. There is no classifier, since the classes are the task's;
            of CLIP's image towers `num_classes` is the width of the projection. `img_size` is understood for every
            model: one that takes any size has it as its input size.

    Returns:
        The backbone, in eval mode.

    Raises:
        UnknownNameError: If timm knows no model of that name.
        BackboneError: If the weights cannot be had or do not fit, `checkpoint` comes with a name whose tags normalise
            images in different ways, a classifier is asked for, the model gives no vector, or it has no blocks.
    """
    if pretrained and checkpoint is not None:
        raise BackboneError("give either pretrained=True or checkpoint=..., not both")
    if not name.startswith(_REMOTE) and not timm.is_model(name):
        raise unknown_name("backbone", name, timm.list_models())
    named = "." in name or bool(timm_arguments.keys() & {"pretrained_cfg", "pretrained_cfg_overlay"})
    if checkpoint is not None and not named:
        check_tag(name)
    if timm_arguments.get("num_classes") and "_clip_" not in name:
        raise BackboneError(
            f"num_classes={timm_arguments['num_classes']}: a backbone gives features and has no classifier; leave it "
            "out, the task's head knows its classes"
        )
    img_size = timm_arguments.get("img_size")
    model = _create(name, pretrained, {"num_classes": 0, **timm_arguments})
    if checkpoint is not None:
        load_weights(model, checkpoint, named=named)
    return Backbone(model, name, Preprocessing.of(model, img_size))


def build_backbone(backbone: Backbone | str | Mapping[str, Any]) -> Backbone:
    """Returns a backbone from itself, its name, or the arguments of `create_backbone`.

    Args:
        backbone: One of the three.

    Raises:
        ConfigError: If a mapping has no `name`.
    """
    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, str):
        return create_backbone(backbone, pretrained=True)
    if "name" not in backbone:
        close = nearest("name", backbone, 1)
        hint = f"; did you mean it by {close[0]!r}?" if close else ""
        raise ConfigError(f"the backbone's settings {shown(dict(backbone))} lack 'name'{hint}")
    return create_backbone(**backbone)


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        with hub_or_disk(_is_of_hub(name, pretrained)):
            return timm.create_model(name, pretrained=pretrained, **arguments)
    except TypeError as error:
        if "img_size" in arguments and "img_size" in str(error):
            return _create(name, pretrained, {key: value for key, value in arguments.items() if key != "img_size"})
        raise BackboneError(f"timm refuses the arguments of {name!r}: {error}") from error
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        cure = "checkpoint=FILE or checkpoint='package:NAME'"
        said = f"{first_line(error)}{f' (without a network, use {cure})' if pretrained else ''}"
        said = not_there("its weights are", cure) if is_missing(error) else said
        raise BackboneError(f"{name!r} could not be created: {said}") from error


def _is_of_hub(name: str, pretrained: bool) -> bool:
    """Tells whether timm asks the hub for the model of a name."""
    if name.startswith(_REMOTE):
        return not name.startswith("local-dir:")
    config = timm.get_pretrained_cfg(name) if pretrained else None
    return config is not None and bool(config.hf_hub_id)
