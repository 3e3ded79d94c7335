"""From an adapter of PEFT's to a `lora` module."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vimlight.backbone import Backbone, Site
from vimlight.errors import CheckpointError, FingerprintError, ZooError, unknown_name
from vimlight.interop.base import Imported, affine_head
from vimlight.interop.peft.config import WEIGHTS, LoraSettings, read_settings
from vimlight.interop.peft.factors import CARD, Factors, split
from vimlight.plugins import Plugin
from vimlight.plugins.lora import Lora
from vimlight.tensor_file import opened, sha256_of, tensors_of
from vimlight.zoo.card import Card
from vimlight.zoo.rebuild import rebuild

__all__ = ["read"]

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")


class _File(NamedTuple):
    layers: dict[str, Factors]
    others: dict[str, Tensor]
    card: Card | None


def read(path: Path, backbone: Backbone) -> Imported:
    """Reads an adapter as a `lora` module, exactly; one that a zoo wrote comes back bit for bit, with its card.

    Layers of lower rank are filled up with zeros; where layers have scales of their own, the difference goes into the
    up factor. A classifier that was trained along becomes the module's head.

    Args:
        path: The folder.
        backbone: The backbone that it was trained on, which the adapter itself does not tell apart from others.

    Raises:
        CheckpointError: If a file is missing, damaged, incomplete or at odds with the other, or holds what a `lora`
            module cannot.
        FingerprintError: If a zoo wrote it for another backbone.
    """
    settings = read_settings(path)
    file = _read_tensors(path)
    if file.card is not None:
        return _restore(file.card, file.layers, backbone)
    sites = _sites(file.layers, backbone)
    _check_targets(settings, file.layers, backbone)
    for layer, factors in file.layers.items():
        _check_shapes(layer, factors, sites[layer], settings.rank_of(layer))
    plugin = _plugin(settings, file.layers, sites, backbone)
    head = _head(settings, file.others, backbone)
    about = {"base": settings.base, "rslora": settings.rslora, "ranks": _table(settings, file.layers)}
    return Imported(plugin, {"text": "imported from an adapter of PEFT's", "extra": {"peft": about}}, head)


def _read_tensors(folder: Path) -> _File:
    file = folder / WEIGHTS
    if not file.is_file() and (folder / "adapter_model.bin").is_file():
        raise CheckpointError(
            "adapter_model.bin is a pickle and is not read, since a pickle can run code; save the adapter again with "
            "save_pretrained(..., safe_serialization=True)"
        )
    with opened(file, "an import", CheckpointError) as content:
        tensors = tensors_of(content)
        text = (content.metadata() or {}).get(CARD)
    halves: dict[str, dict[str, Tensor]] = {}
    others = {}
    for key, tensor in tensors.items():
        found = _FACTOR.fullmatch(key.removeprefix(_PREFIX))
        if not tensor.is_floating_point():
            raise CheckpointError(f"{WEIGHTS}: tensor {key!r} holds {tensor.dtype}, not floating-point numbers")
        if found:
            # PEFT computes in single precision, whatever the file's.
            halves.setdefault(found[1], {})[found[2]] = tensor.float()
        else:
            others[key.removeprefix(_PREFIX)] = tensor.float()
    for layer, pair in halves.items():
        if len(pair) < 2:
            raise CheckpointError(f"{WEIGHTS} holds only one of the two factors of {layer!r}")
    if not halves:
        raise CheckpointError(f"{WEIGHTS} holds no LoRA factors, such as '{_PREFIX}blocks.0.attn.qkv.lora_A.weight'")
    try:
        card = None if text is None else Card.from_json(text)
    except ZooError as error:
        raise CheckpointError(f"{WEIGHTS}: {error}") from error
    return _File({layer: Factors(pair["A"], pair["B"]) for layer, pair in halves.items()}, others, card)


def _restore(card: Card, layers: Mapping[str, Factors], backbone: Backbone) -> Imported:
    """Returns the very module that a zoo exported."""
    if card.fingerprint != backbone.fingerprint:
        raise FingerprintError(
            f"the adapter was exported for {card.backbone!r} with the fingerprint {card.fingerprint[:12]}, "
            f"not for {backbone.name!r} ({backbone.fingerprint[:12]})"
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
            raise CheckpointError(f"the adapter changes {layer!r}, where a lora module of {backbone.name!r} cannot sit")
        if layer not in known:
            raise CheckpointError(str(unknown_name(f"layer of {backbone.name!r}", layer, known)))
    return {name: site for name, site in known.items() if name in layers}


def _check_targets(settings: LoraSettings, layers: Mapping[str, Factors], backbone: Backbone) -> None:
    """Checks that file and config mean the same layers: half an adapter loads without a word elsewhere."""
    stray = next((layer for layer in layers if settings.aims_at(layer) is False), None)
    if stray is not None:
        raise CheckpointError(f"{WEIGHTS} holds factors of {stray!r}, which target_modules does not name")
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    aims = [name for name, part in backbone.model.named_modules() if isinstance(part, kinds) and settings.aims_at(name)]
    missing = [name for name in aims if name not in layers]
    if missing:
        raise CheckpointError(
            f"{WEIGHTS} lacks the factors of {missing[0]!r} and of {len(missing) - 1} more that target_modules names"
        )


def _check_shapes(layer: str, factors: Factors, site: Site, rank: int) -> None:
    geometry = site.convolution
    kernel = geometry.kernel if geometry else ()
    wanted = (rank, site.input_width, *kernel), (site.width, rank, *(1 for _ in kernel))
    found = tuple(factors.down.shape), tuple(factors.up.shape)
    for name, (one, other) in zip("AB", zip(found, wanted, strict=True), strict=True):
        if one != other:
            raise CheckpointError(f"{WEIGHTS}: lora_{name} of {layer!r} has the shape {one}, but {other} is expected")
    if geometry and geometry.dilation != (1, 1):
        raise CheckpointError(f"{layer!r} is a dilated convolution, whose adapter PEFT does not dilate")


def _plugin(
    settings: LoraSettings, layers: Mapping[str, Factors], sites: Mapping[str, Site], backbone: Backbone
) -> Plugin:
    scales = {layer: settings.scale_of(layer) for layer in layers}
    rank = max(settings.rank_of(layer) for layer in layers)
    common = Counter(scales.values()).most_common(1)[0][0]
    alpha = settings.alpha if common == settings.alpha / rank else common * rank
    plugin = Plugin(
        "lora",
        list(sites.values()),
        {"rank": rank, "alpha": alpha},
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
            unit.up.copy_(F.pad(up if scales[layer] == common else up * (scales[layer] / common), (0, missing)))
    return plugin.eval().requires_grad_(False)


def _head(settings: LoraSettings, others: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor] | None:
    classifier = cast("dict[str, Any]", backbone.model.pretrained_cfg).get("classifier")
    for name in settings.saved:
        if not isinstance(classifier, str) or not (classifier == name or classifier.endswith(f".{name}")):
            raise CheckpointError(
                f"the adapter trained {name!r} along whole; a module can keep only the classifier, {classifier!r}"
            )
    mine = [key for key in others if key.startswith(f"{classifier}.")]
    found = {key.removeprefix(f"{classifier}."): others.pop(key) for key in mine}
    if others:
        raise CheckpointError(f"{WEIGHTS} holds {next(iter(others))!r}, which is no part of a LoRA module")
    return affine_head(found, backbone) if found else None


def _table(settings: LoraSettings, layers: Mapping[str, Factors]) -> dict[str, list[float]]:
    return {layer: [settings.rank_of(layer), settings.scale_of(layer)] for layer in layers}
