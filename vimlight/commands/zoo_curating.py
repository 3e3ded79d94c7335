"""`vimlight zoo diff`, `dedupe` and `merge`: which modules are alike, and one in place of several."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

from vimlight.commands.output import one_line, print_json, print_table, print_text
from vimlight.commands.zoo_opening import open_zoo
from vimlight.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from vimlight.backbone import Backbone
    from vimlight.data import ImageDataModule
    from vimlight.plugins import Plugin
    from vimlight.zoo import Card, Zoo
    from vimlight.zoo.likeness import Likeness

__all__ = ["add_commands"]

_PROBES = "scenes"
_FEWEST = 4
_HEADINGS = ("cka", "cosine", "difference")
# What a module has of its own, however alike it is to another.
_OWN = ("sha256", "head", "date")


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands.

    Args:
        command: Adds a command by its name, what runs it and what it does; returns its parser.
    """
    diff = command("diff", _diff, "compare two modules: cards, weights, and what they do to features of probe images")
    dedupe = command("dedupe", _dedupe, "find modules that do nearly the same, and remove them if --remove says so")
    merge = command("merge", _merge, "average near-duplicates into a new module, and measure what that costs")
    diff.add_argument("names", metavar="NAME", nargs=2)
    merge.add_argument("names", metavar="NAME", nargs="+")
    merge.add_argument("--name", required=True, metavar="NEW", help="name of the mean in the zoo")
    dedupe.add_argument(
        "--threshold", type=float, default=0.95, help="least CKA and cosine of near-duplicates (default: 0.95)"
    )
    dedupe.add_argument("--remove", action="store_true", help="remove what others stand for")
    for sub in (diff, dedupe, merge):
        sub.add_argument(
            "--backbone", metavar="NAME", help="name or '{name: ..., checkpoint: ...}' (default: the card's)"
        )
        sub.add_argument(
            "--data",
            metavar="SOURCE",
            default=_PROBES,
            help=f"where probe images come from (default: {_PROBES}, drawn)",
        )
        sub.add_argument(
            "--args", metavar="KEY=VALUE", nargs="+", default=[], help="its arguments, as for vimlight data show"
        )
        sub.add_argument("--images", metavar="N", type=int, default=64, help="number of probe images (default: 64)")
        sub.add_argument("--json", action="store_true", help="print JSON")


def _diff(options: argparse.Namespace) -> None:
    from vimlight.zoo.likeness import weights_alike

    zoo = open_zoo(options.zoo)
    (one, first), (two, second) = (zoo.read(name) for name in options.names)
    cards, (weights, count) = _differences(one, two), weights_alike(first, second)
    effects: dict[str, Likeness] = {}
    if not options.json:
        print_table(("card", *options.names), [(key, *map(one_line, both)) for key, both in cards.items()])
        print()
        print_text(_said(weights, count))
        print()
    if one.fingerprint == two.fingerprint:
        effects = _effects_alike(zoo, options)
    if options.json:
        stated = {place: alike._asdict() for place, alike in effects.items()}
        print_json({"card": cards, "weights": weights and {**weights._asdict(), "tensors": count}, "effects": stated})
    elif effects:
        print_table(("effect", *_HEADINGS), [(place, *_cells(alike)) for place, alike in effects.items()])
    else:
        print_text("they belong to different backbones, so that what they do is not compared")


def _differences(one: Card, two: Card) -> dict[str, tuple[Any, Any]]:
    cards = asdict(one), asdict(two)
    return {key: (cards[0][key], cards[1][key]) for key in cards[0] if cards[0][key] != cards[1][key]}


def _said(weights: Likeness | None, count: int) -> str:
    if weights is None:
        return "weights: no tensor of one has the name, type and shape of one of the other"
    figures = f"cosine {weights.cosine:.4f}, relative difference {weights.difference:.4f}"
    return f"weights: {figures} over {count} tensors of the same name, type and shape"


def _effects_alike(zoo: Zoo, options: argparse.Namespace) -> dict[str, Likeness]:
    from vimlight.zoo.likeness import Effect, features_of, likeness

    backbone = _backbone(zoo.card(options.names[0]), options)
    images = _probe_images(_data(backbone, options), options.images)
    bare, *both = (features_of(backbone, plugin, images) for plugin in (None, *_loaded(zoo, options.names, backbone)))
    return {place: likeness(*(Effect.of(found[place], bare[place]) for found in both)) for place in bare}


def _dedupe(options: argparse.Namespace) -> None:
    from vimlight.zoo.likeness import near_duplicates

    zoo = open_zoo(options.zoo)
    alike: dict[tuple[str, str], Likeness] = {}
    for names in _by_backbone(zoo):
        alike |= _pairs(zoo, names, options)
    least = {pair: each.least for pair, each in alike.items()}
    stays = near_duplicates(least, zoo.names(), options.threshold)
    near = sorted((pair for pair, value in least.items() if value >= options.threshold), key=lambda pair: -least[pair])
    if options.json:
        pairs = [{"modules": pair, **alike[pair]._asdict()} for pair in near]
        print_json({"pairs": pairs, "stand_ins": stays, "removed": options.remove})
    elif near:
        print_table(("module", "and", *_HEADINGS), [(*pair, *_cells(alike[pair])) for pair in near])
    if options.remove:
        for name in stays:
            zoo.remove(name)
    if not options.json:
        print_text(_proposal(stays, len(zoo), options))


def _by_backbone(zoo: Zoo) -> Iterable[list[str]]:
    """Returns the modules of each backbone that has several."""
    found = defaultdict(list)
    for name in zoo:
        found[zoo.card(name).fingerprint].append(name)
    return [names for names in found.values() if len(names) > 1]


def _pairs(zoo: Zoo, names: Sequence[str], options: argparse.Namespace) -> dict[tuple[str, str], Likeness]:
    """Compares what each two modules do to the backbone's feature."""
    from vimlight.zoo.likeness import END, Effect, features_of, likeness

    backbone = _backbone(zoo.card(names[0]), options)
    images = _probe_images(_data(backbone, options), options.images)
    bare = features_of(backbone, None, images)[END]
    found = (features_of(backbone, plugin, images)[END] for plugin in _loaded(zoo, names, backbone))
    effects = {name: Effect.of(features, bare) for name, features in zip(names, found, strict=True)}
    return {(one, two): likeness(effects[one], effects[two]) for one, two in combinations(names, 2)}


def _proposal(stays: dict[str, str], left: int, options: argparse.Namespace) -> str:
    if not stays:
        return f"no two of {left} modules do nearly the same"
    went = ", ".join(f"{name} (as {other})" for name, other in sorted(stays.items()))
    if options.remove:
        return f"removed: {went}; modules left: {left}"
    return f"could go: {went}; remove them with --remove, or average some with: vimlight zoo merge"


def _merge(options: argparse.Namespace) -> None:
    from vimlight.zoo.merging import merge

    zoo = open_zoo(options.zoo)
    zoo.check_new(options.name)
    backbone = _backbone(zoo.card(options.names[0]), options)
    data = _data(backbone, options)
    merged = merge(zoo, options.names, backbone, _probe_images(data, options.images))
    scores = _scores(zoo, options.names, merged.plugin, backbone, data)
    for parent in merged.card["extra"]["parents"]:
        parent.update(scores.get(parent["name"], {}))
    zoo.add(options.name, merged.plugin, merged.card)
    if options.json:
        print_json({"name": options.name, "settings": merged.plugin.settings, **merged.card["extra"]})
        return
    print_table(("mean and", *_HEADINGS), [(name, *_cells(alike)) for name, alike in merged.costs.items()])
    for name, score in scores.items():
        own, mean = (one_line(score[key]) for key in ("metrics", "metrics_of_mean"))
        print(f"{name}: {own}; the mean with its head: {mean}")
    print(f"added {options.name!r} to zoo {options.zoo!r}: {merged.plugin.kind}, {one_line(merged.plugin.settings)}")


def _scores(
    zoo: Zoo, names: Sequence[str], mean: Plugin, backbone: Backbone, data: ImageDataModule
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the metrics of each parent that learnt from the data and kept its head, and of the mean in its place."""
    from vimlight.commands.train import quietly
    from vimlight.training.validating import belongs_to, validated

    found = {}
    for name in dict.fromkeys(names):
        card = zoo.card(name)
        if not card.head or not belongs_to(card, data):
            continue
        plugins = {"metrics": zoo.load(name, backbone), "metrics_of_mean": mean}
        with quietly():
            found[name] = {
                key: validated(plugin, zoo.load_head(name), card, backbone, data) for key, plugin in plugins.items()
            }
    return found


def _cells(alike: Likeness) -> list[str]:
    return [f"{value:.4f}" if value is not None else "-" for value in (alike.cka, alike.cosine, alike.difference)]


def _backbone(card: Card, options: argparse.Namespace) -> Backbone:
    """Builds the backbone of a module: the one that is named, or what the card says of it."""
    from vimlight.backbone import build_backbone
    from vimlight.interop.base import described

    if options.backbone is not None:
        return build_backbone(described(options.backbone))
    size = card.preprocessing.get("size")
    return build_backbone({"name": card.backbone, "pretrained": True, **({"img_size": tuple(size)} if size else {})})


def _loaded(zoo: Zoo, names: Iterable[str], backbone: Backbone) -> Iterator[Plugin]:
    return (zoo.load(name, backbone) for name in names)


def _data(backbone: Backbone, options: argparse.Namespace) -> ImageDataModule:
    from vimlight.data import MidstreamDataModule
    from vimlight.data.arguments import parse_arguments

    if options.images < _FEWEST:
        raise ConfigError(f"--images {options.images} are too few to compare modules on; at least {_FEWEST} are needed")
    given = parse_arguments(options.args)
    if options.data == _PROBES and not given:
        # As many as are asked for, and those lent to validation.
        given = {"task": "attributes", "train": 2 * options.images, "test": 1, "size": max(backbone.preprocessing.size)}
    return MidstreamDataModule(options.data, given, preprocessing=backbone.preprocessing)


def _probe_images(data: ImageDataModule, count: int) -> list[Tensor]:
    """Returns batches of the first training images, which are a fair sample of them and the same each time."""
    batches = [batch["image"] for batch in data.batches("train", limit=count)]
    return [*batches[:-1], batches[-1][: count - sum(map(len, batches[:-1]))]]
