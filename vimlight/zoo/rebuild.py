"""From a card and tensors back to a module, with every way in which they may not fit together checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from vimlight.backbone import Backbone
from vimlight.backbone.weights import why_other
from vimlight.errors import FingerprintError, PluginError, UnknownNameError, ZooError, shown, unknown_name
from vimlight.files.outline import check_shapes, outline
from vimlight.plugins import Plugin
from vimlight.zoo.card import Card

__all__ = ["rebuild"]


def rebuild(name: str, card: Card, tensors: Mapping[str, Tensor], backbone: Backbone) -> Plugin:
    """Builds the module that a card describes and gives it the tensors as they are.

    Args:
        name: Name of the module, for messages.
        card: Its card.
        tensors: Its tensors by name.
        backbone: The backbone it was trained on.

    Returns:
        The module, in eval mode, frozen, on the backbone's device.

    Raises:
        FingerprintError: If it was trained on another backbone.
        ZooError: If its plug-in type or a setting is unknown here, or the tensors are not those of the type.
    """
    _check_backbone(name, card, backbone)
    _check_settings(name, card)
    # What the settings make of one site tells whether they are those of the tensors, before memory is taken for all.
    first = outline(lambda: _empty_plugin(name, card, backbone, card.sites[:1]), f"module {name!r}", ZooError)
    check_shapes(tensors, first.state_dict(), f"module {name!r}", ZooError)
    # The initial values are thrown away, so they must not move the global random state.
    with torch.random.fork_rng(devices=[]), _on_cpu():
        plugin = _empty_plugin(name, card, backbone, card.sites)
    _check_tensors(name, plugin, tensors)
    # Assigned, not copied, so that the dtype is the file's too.
    plugin.load_state_dict(tensors, assign=True)
    return plugin.to(next(backbone.parameters()).device).requires_grad_(False).eval()


def _on_cpu() -> AbstractContextManager[Any]:
    # A default device, even the CPU, is a detour through Python for each call of torch: a third of the time of layers.
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def _check_backbone(name: str, card: Card, backbone: Backbone) -> None:
    if card.fingerprint == backbone.fingerprint:
        return
    why = why_other(card.fingerprint, backbone.model, backbone.preprocessing)
    if not why and card.backbone == backbone.name:
        # As JSON has it, with lists for tuples.
        preprocessing = json.loads(json.dumps(backbone.preprocessing.identity()))
        noted = {key: value for key, value in card.preprocessing.items() if (key, value) != ("crop_mode", "center")}
        why = f": same name, other {'weights' if noted == preprocessing else 'preprocessing'}"
    raise FingerprintError(
        f"module {name!r} was trained on {shown(card.backbone)} (fingerprint {card.fingerprint[:12]}), "
        f"not on {backbone.name!r} ({backbone.fingerprint[:12]}){why}"
    )


def _check_settings(name: str, card: Card) -> None:
    for key, value in card.settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ZooError(f"module {name!r}: setting {shown(key)} must be a finite number, not {shown(value)}")
    if len(set(card.sites)) != len(card.sites):
        raise ZooError(f"module {name!r}: the card names a site twice")


def _empty_plugin(name: str, card: Card, backbone: Backbone, names: Sequence[str]) -> Plugin:
    sites = {site.name: site for site in backbone.all_sites}
    missing = [site for site in names if site not in sites]
    if missing:
        raise ZooError(f"module {name!r}: {unknown_name(f'site of {backbone.name!r}', missing[0], sites)}")
    try:
        return Plugin(
            card.kind,
            [sites[site] for site in names],
            card.settings,
            card.fingerprint,
            backbone.name,
            backbone.preprocessing,
            len(backbone.blocks),
        )
    except (UnknownNameError, PluginError) as error:
        raise ZooError(f"module {name!r}: {error}") from error


def _check_tensors(name: str, plugin: Plugin, tensors: Mapping[str, Tensor]) -> None:
    expected = plugin.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors, such as {shown(missing[0])}"] if missing else []
        parts += [f"has {len(extra)} tensors too many, such as {shown(extra[0])}"] if extra else []
        raise ZooError(f"module {name!r} {' and '.join(parts)}, for a plug-in of type {plugin.kind!r}")
    check_shapes(tensors, expected, f"module {name!r}", ZooError)
