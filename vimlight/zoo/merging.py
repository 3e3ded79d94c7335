"""Modules averaged into one, with a card that says of which, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vimlight.backbone import Backbone
from vimlight.errors import ZooError
from vimlight.plugins import Plugin
from vimlight.plugins.averaging import average
from vimlight.zoo.card import Card
from vimlight.zoo.likeness import END, Effect, Likeness, features_of, likeness
from vimlight.zoo.zoo import Zoo

__all__ = ["Merged", "merge"]

# What a mean has in common with its parents where they have it in common.
_SHARED = ("task", "dataset", "classes", "training", "author")


@dataclass(frozen=True)
class Merged:
    """A mean of modules.

    Attributes:
        plugin: The module.
        card: Describing fields of its card.
        costs: How alike its effect is to that of each parent, by the parent's name.
    """

    plugin: Plugin
    card: dict[str, Any]
    costs: dict[str, Likeness]


def merge(zoo: Zoo, names: Sequence[str], backbone: Backbone, images: Sequence[Tensor]) -> Merged:
    """Averages modules; nothing is written.

    Args:
        zoo: The zoo.
        names: The modules, two at least, of one type, setting and set of sites; one may stand there twice.
        backbone: Their backbone.
        images: Batches of preprocessed probe images.

    Raises:
        FingerprintError: If one was trained on another backbone.
        PluginError: If they differ in type, settings or sites.
        ZooError: If there are fewer than two, or one is missing or damaged.
    """
    if len(names) < 2:
        raise ZooError(f"a mean is one of two modules at least; {len(names)} named")
    parents = [zoo.load(name, backbone) for name in names]
    plugin = average(parents, names)
    bare = features_of(backbone, None, images)[END]
    effects = [Effect.of(features_of(backbone, each, images)[END], bare) for each in (plugin, *parents)]
    costs = {name: likeness(effect, effects[0]) for name, effect in zip(names, effects[1:], strict=True)}
    return Merged(plugin, _card({name: zoo.card(name) for name in names}, names, costs, len(bare)), costs)


def _card(
    cards: Mapping[str, Card], names: Sequence[str], costs: Mapping[str, Likeness], images: int
) -> dict[str, Any]:
    first = cards[names[0]]
    shared = {
        field: getattr(first, field)
        for field in _SHARED
        if all(getattr(card, field) == getattr(first, field) for card in cards.values())
    }
    licences = sorted({card.license for card in cards.values()})
    parents = [
        {"name": name, "sha256": cards[name].sha256, "probe_images": images, **costs[name]._asdict()} for name in names
    ]
    return {
        **shared,
        # All of them hold, as SPDX says it; where one is not known, that of the mean is not.
        "license": " AND ".join(licences) if all(licences) else "",
        "text": f"the mean of {' and '.join(names)}",
        "extra": {"parents": parents},
    }
