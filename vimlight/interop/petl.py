"""Convpass and AdaptFormer modules as PETL-ViT saves them: trained tensors by name, in a file of `torch.save`.

Their names are `blocks.N.adapter_attn.adapter_down.weight` and the like. What the names leave open is asked for: the
scale, which stands in a config beside the file, and for AdaptFormer whether its weights are meant at full precision,
since quantised ones have the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vimlight.backbone import Backbone
from vimlight.errors import BackboneError, CheckpointError, ConfigError, shown, unknown_name
from vimlight.files.weight_file import read_weights
from vimlight.interop.base import Fact, Format, Imported, add_module, affine_head
from vimlight.interop.registry import FORMATS
from vimlight.plugins import Plugin

__all__ = ["PetlFile", "read"]

_NAME = re.compile(r"(.+)\.adapter_(attn|mlp)\.adapter_(down|conv|up)\.(weight|bias)")
_PARTS = {
    "convpass": tuple(f"{part}.{name}" for part in ("down", "conv", "up") for name in ("weight", "bias")),
    "adaptformer": ("down.weight", "up.weight"),
}
# What the authors train with; it has no effect on a module that is read.
_DROPOUT = 0.1


@FORMATS.register("petl")
class PetlFile(Format):
    """Trained tensors of PETL-ViT."""

    suffix = ".pt"
    text = "trained tensors of PETL-ViT's Convpass or AdaptFormer"

    def import_zoo(
        self,
        path: Path,
        out: Path,
        *,
        backbone: str | None = None,
        name: str | None = None,
        scale: float | None = None,
        bits: int | None = None,
    ) -> list[Fact]:
        """Reads a file into a zoo as one module; see `Format.import_zoo`.

        Args:
            path: The file.
            out: Directory of the zoo, new or not.
            backbone: The backbone it was trained on: its name, or the arguments of `create_backbone` as YAML.
            name: The module's name in the zoo; the file's if left out.
            scale: The factor `s` of the training.
            bits: Of the adapter's weights; 32 for full precision.
        """
        if scale is None:
            raise ConfigError("the file does not say by which scale its modules are multiplied; give it with --scale S")
        return add_module(out, name or path.stem, backbone, lambda built: read(path, built, scale, bits))


def read(path: Path, backbone: Backbone, scale: float, bits: int | None = None) -> Imported:
    """Reads a file as one `convpass` or `adaptformer` module, and the classifier in it as its head.

    Args:
        path: A file of plain tensors, or `.safetensors`.
        backbone: The backbone it was trained on.
        scale: The factor `s` of the training.
        bits: Of the weights of an AdaptFormer; 32 for full precision.

    Raises:
        BackboneError: If the file is missing, unsafe or damaged.
        CheckpointError: If it holds something else than these modules, or leaves open which.
    """
    units, others = _sorted(read_weights(path, error=BackboneError).tensors)
    kind = _kind(units, path)
    if kind == "adaptformer" and bits != 32:
        raise CheckpointError(
            f"{path.name}: the names of an AdaptFormer's weights do not say whether they are quantised, which a module "
            "cannot be; if they are of full precision, say --bits 32"
        )
    for site, tensors in units.items():
        _check_parts(path, site, kind, tensors)
    plugin = _plugin(kind, units, backbone, scale)
    head = {name.removeprefix("head."): others.pop(name) for name in [*others] if name.startswith("head.")}
    if others:
        raise CheckpointError(f"{path.name} holds {shown(next(iter(others)))}, which is no part of a {kind} module")
    about = {"text": f"imported from PETL-ViT's {path.name}"}
    return Imported(plugin, about, affine_head(head, backbone) if head else None)


def _sorted(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Sorts tensors by the site and by the name within the unit; returns the others too."""
    units: dict[str, dict[str, Tensor]] = {}
    others = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        if found:
            units.setdefault(f"{found[1]}.{found[2]}", {})[f"{found[3]}.{found[4]}"] = tensor.float()
        else:
            others[name] = tensor.float()
    return units, others


def _kind(units: Mapping[str, Mapping[str, Tensor]], path: Path) -> str:
    if not units:
        raise CheckpointError(f"{path.name} holds no adapters, such as 'blocks.0.adapter_mlp.adapter_down.weight'")
    convolves = any(part.startswith("conv") for tensors in units.values() for part in tensors)
    if not convolves and any(site.endswith(".attn") for site in units):
        raise CheckpointError(f"{path.name}: adapters without a convolution at the attention are no AdaptFormer's")
    return "convpass" if convolves else "adaptformer"


def _check_parts(path: Path, site: str, kind: str, tensors: Mapping[str, Tensor]) -> None:
    wanted = _PARTS[kind]
    missing, extra = [p for p in wanted if p not in tensors], [p for p in tensors if p not in wanted]
    if missing or extra:
        what = f"lacks {shown(missing[0])}" if missing else f"has {shown(extra[0])}, which PETL-ViT's {kind} has not"
        raise CheckpointError(f"{path.name}: the adapter at {shown(site)} {what}")


def _plugin(kind: str, units: Mapping[str, Mapping[str, Tensor]], backbone: Backbone, scale: float) -> Plugin:
    known = {site.name: site for site in backbone.all_sites.branches}
    for name in units:
        if name not in known:
            raise CheckpointError(str(unknown_name(f"branch of {backbone.name!r}", name, known)))
    sites = [site for name, site in known.items() if name in units]
    hidden = units[sites[0].name]["down.weight"].shape[0]
    settings = {"hidden": hidden, "scale": scale, "dropout": _DROPOUT}
    plugin = Plugin(
        kind, sites, settings, backbone.fingerprint, backbone.name, backbone.preprocessing, len(backbone.blocks)
    )
    with torch.no_grad():
        for site in sites:
            state = plugin.unit(site).state_dict()
            for part, tensor in units[site.name].items():
                if tensor.shape != state[part].shape:
                    shapes = f"{tuple(tensor.shape)}, but {tuple(state[part].shape)} is expected"
                    raise CheckpointError(f"{shown(part)} of the adapter at {site.name!r} has the shape {shapes}")
            # An AdaptFormer's biases start at zero, and the authors' has none.
            plugin.unit(site).load_state_dict({**state, **units[site.name]})
    return plugin.eval().requires_grad_(False)
