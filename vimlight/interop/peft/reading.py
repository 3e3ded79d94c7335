"""From an adapter of PEFT's to a `lora` module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vimlight.backbone import Backbone, Site
from vimlight.backbone.weights import why_other
from vimlight.errors import CheckpointError, FingerprintError, shown, unknown_name
from vimlight.files.tensor_file import sha256_of
from vimlight.interop.base import Imported
from vimlight.interop.peft.config import CONFIG, WEIGHTS, LoraSettings, read_settings
from vimlight.interop.peft.contents import Contents, read_tensors
from vimlight.interop.peft.factors import Factors, split
from vimlight.interop.peft.head import read_head
from vimlight.interop.peft.plain import check_changes, uncalled
from vimlight.plugins import Plugin
from vimlight.plugins.lora import Lora
from vimlight.zoo.card import Card
from vimlight.zoo.rebuild import rebuild

__all__ = ["read"]


def read(path: Path, backbone: Backbone) -> Imported:
    """Reads an adapter as a `lora` module, exactly; one that a zoo wrote comes back bit for bit, with its card.

    Layers of lower rank are filled up with zeros; where layers have scales of their own, the difference goes into the
    up factor. A classifier that was trained along becomes the module's head. Layers that a plain timm model never calls
    are left out if they did nothing, which is how PEFT leaves them.

    Args:
        path: The folder.
        backbone: The backbone that it was trained on, which the adapter itself does not tell apart from others.

    Raises:
        CheckpointError: If a file is missing, damaged, incomplete or at odds with the other, or holds what a `lora`
            module cannot.
        FingerprintError: If a zoo wrote it for another backbone.
    """
    settings = read_settings(path)
    file = read_tensors(path)
    if file.card is not None:
        return _restore(file.card, file.layers, backbone)
    sites = _sites(file.layers, backbone)
    _check_targets(settings, file.layers, backbone)
    for layer, factors in file.layers.items():
        _check_shapes(layer, factors, sites[layer], settings)
    layers = _with_biases(settings, file, backbone)
    check_changes(layers, sites, backbone)
    idle = _idle(layers, backbone)
    layers = {layer: factors for layer, factors in layers.items() if layer not in idle}
    plugin = _plugin(settings, layers, {name: site for name, site in sites.items() if name in layers}, backbone)
    head = read_head(settings.saved, file.others, backbone)
    about = {"base": settings.base, "rslora": settings.rslora, "ranks": _table(settings, layers)}
    text = "imported from an adapter of PEFT's"
    if idle:
        text += f"; its change of {len(idle)} layers, such as {idle[0]!r}, which timm's model never calls, was zero"
    return Imported(plugin, {"text": text, "extra": {"peft": about}}, head)


def _restore(card: Card, layers: Mapping[str, Factors], backbone: Backbone) -> Imported:
    """Returns the very module that a zoo exported."""
    if card.fingerprint != backbone.fingerprint:
        raise FingerprintError(
            f"the adapter was exported for {shown(card.backbone)} with the fingerprint {card.fingerprint[:12]}, "
            f"not for {backbone.name!r} ({backbone.fingerprint[:12]})"
            + why_other(card.fingerprint, backbone.model, backbone.preprocessing)
        )
    try:
        tensors = split(card.sites, layers)
    except (KeyError, ValueError):
        tensors = {}
    if not tensors or sha256_of(tensors) != card.sha256:
        raise CheckpointError(f"{WEIGHTS}: the tensors were altered after they were exported (their SHA-256 differs)")
    return Imported(rebuild("adapter", card, tensors, backbone), card, None)


def _sites(layers: Mapping[str, Factors], backbone: Backbone) -> dict[str, Site]:
    known = {site.name: site for site in backbone.all_sites if site.part is None and Lora.supports(site)}
    modules = dict(backbone.model.named_modules())
    for layer in layers:
        if layer in modules and layer not in known:
            raise CheckpointError(
                f"the adapter changes {shown(layer)}, where a lora module of {backbone.name!r} cannot sit"
            )
        if layer not in known:
            raise CheckpointError(str(unknown_name(f"layer of {backbone.name!r}", layer, known)))
    return {name: site for name, site in known.items() if name in layers}


def _check_targets(settings: LoraSettings, layers: Mapping[str, Factors], backbone: Backbone) -> None:
    """Checks that file and config mean the same layers: half an adapter loads without a word elsewhere."""
    stray = next((layer for layer in layers if settings.aims_at(layer) is False), None)
    if stray is not None:
        raise CheckpointError(f"{WEIGHTS} holds factors of {shown(stray)}, which target_modules does not name")
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    aims = [name for name, part in backbone.model.named_modules() if isinstance(part, kinds) and settings.aims_at(name)]
    missing = [name for name in aims if name not in layers]
    if missing:
        raise CheckpointError(
            f"{WEIGHTS} lacks the factors of {shown(missing[0])} and of {len(missing) - 1} more that target_modules "
            "names"
        )


def _check_shapes(layer: str, factors: Factors, site: Site, settings: LoraSettings) -> None:
    geometry, rank = site.convolution, settings.rank_of(layer)
    kernel = geometry.kernel if geometry else ()
    wanted = (rank, site.input_width, *kernel), (site.width, rank, *(1 for _ in kernel))
    found = tuple(factors.down.shape), tuple(factors.up.shape)
    for name, (one, other) in zip("AB", zip(found, wanted, strict=True), strict=True):
        if one != other:
            raise CheckpointError(
                f"{WEIGHTS}: lora_{name} of {shown(layer)} has the shape {one}, but {other} is expected"
            )
    shift = None if factors.bias is None else tuple(factors.bias.shape)
    if shift != ((site.width,) if settings.shifts else None):
        raise CheckpointError(
            f"{WEIGHTS}: the bias of lora_B of {shown(layer)} has the shape {shift}, at odds with 'lora_bias' in "
            f"{CONFIG}"
        )


def _with_biases(settings: LoraSettings, file: Contents, backbone: Backbone) -> dict[str, Factors]:
    """Adds how far the layers' own biases moved to the changes of the layers."""
    return {layer: _with_bias(settings, layer, factors, file, backbone) for layer, factors in file.layers.items()}


def _with_bias(settings: LoraSettings, layer: str, factors: Factors, file: Contents, backbone: Backbone) -> Factors:
    own = cast("Tensor | None", backbone.model.get_submodule(layer).bias)
    trained = file.biases.get(layer)
    if not settings.biases or own is None:
        if trained is not None:
            raise CheckpointError(
                f"{WEIGHTS} holds a bias of {shown(layer)}, which {CONFIG} or the layer does not have"
            )
        return factors
    if trained is None or trained.shape != own.shape:
        found = "none" if trained is None else f"one of the shape {tuple(trained.shape)}"
        raise CheckpointError(
            f"{CONFIG} says that the bias of {shown(layer)} was trained, but {WEIGHTS} holds {found}; to read the "
            "adapter without trained biases set 'bias' to 'none'"
        )
    moved = (trained - own.detach().float().cpu()) / settings.scale_of(layer)
    return factors._replace(bias=moved if factors.bias is None else factors.bias + moved)


def _idle(layers: Mapping[str, Factors], backbone: Backbone) -> list[str]:
    """Returns the layers that a plain timm model never calls, if what they would do is nothing too."""
    idle = uncalled(layers, backbone)
    busy = [layer for layer in idle if layers[layer].does_something()]
    if busy or len(idle) == len(layers):
        raise CheckpointError(
            f"the adapter changes {(busy or idle)[0]!r}, which timm's {backbone.name!r} never calls, so it does "
            f"{'nothing there' if len(idle) < len(layers) else 'nothing'} in PEFT; train an adapter of other layers"
        )
    return idle


def _plugin(
    settings: LoraSettings, layers: Mapping[str, Factors], sites: Mapping[str, Site], backbone: Backbone
) -> Plugin:
    scales = {layer: settings.scale_of(layer) for layer in layers}
    rank = max(settings.rank_of(layer) for layer in layers)
    common = Counter(scales.values()).most_common(1)[0][0]
    alpha = settings.alpha if common == settings.alpha / rank else common * rank
    biased = any(factors.bias is not None for factors in layers.values())
    plugin = Plugin(
        "lora",
        list(sites.values()),
        {"rank": rank, "alpha": alpha, "bias": biased},
        backbone.fingerprint,
        backbone.name,
        backbone.preprocessing,
    )
    with torch.no_grad():
        for layer, site in sites.items():
            unit, factors = plugin.unit(site), layers[layer]
            assert isinstance(unit, Lora)
            missing = rank - factors.down.shape[0]
            up = factors.up.flatten(1)
            unit.down.copy_(torch.cat([factors.down, factors.down.new_zeros(missing, *factors.down.shape[1:])]))
            rescale = scales[layer] / common
            unit.up.copy_(F.pad(up if rescale == 1 else up * rescale, (0, missing)))
            if unit.bias is not None and factors.bias is not None:
                unit.bias.copy_(factors.bias * rescale)
    return plugin.eval().requires_grad_(False)


def _table(settings: LoraSettings, layers: Mapping[str, Factors]) -> dict[str, list[float]]:
    return {layer: [settings.rank_of(layer), settings.scale_of(layer)] for layer in layers}
