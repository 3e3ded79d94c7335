"""Reading weights safely, fitting them to a model, and naming the result by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from vimlight.backbone.preprocessing import Preprocessing
from vimlight.errors import BackboneError, shown
from vimlight.files.weight_file import WeightFile, read_weights
from vimlight.trust import check_trusted

__all__ = ["check_tag", "fingerprint_of", "load_weights", "why_other"]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_PACKAGE = "package:"


def check_tag(name: str) -> None:
    """Refuses a name that leaves open how images are normalised, for weights from a file.

    Args:
        name: A name of timm's; with a tag, such as `vit_base_patch16_224.mae`, it leaves nothing open.

    Raises:
        BackboneError: If there is no tag, and timm's tags of that name differ in mean or standard deviation.
    """
    found: dict[tuple[tuple[float, ...], tuple[float, ...]], str] = {}
    for tagged in timm.list_pretrained(f"{name}.*") if "." not in name else ():
        config = timm.get_pretrained_cfg(tagged)
        assert config is not None
        found.setdefault((tuple(config.mean), tuple(config.std)), tagged)
    if len(found) > 1:
        examples = " or ".join(
            f"{tagged!r} (mean {', '.join(f'{value:.3g}' for value in mean)})" for (mean, _), tagged in found.items()
        )
        raise BackboneError(
            f"weights of {name!r} were trained on images normalised in {len(found)} ways, and a file does not say "
            f"which; name the tag whose way is right: {examples}"
        )


def load_weights(model: nn.Module, checkpoint: str, *, named: bool = True) -> None:
    """Loads a checkpoint into a model, all of it or nothing.

    The names are tried as they are, then through the model family's own converter of published formats, and for weights
    of an installed package also in their order, if every shape agrees. A classifier in the file may be left over.

    Args:
        model: The model that receives the weights.
        checkpoint: A `.safetensors` file, a file of plain tensors (read with `weights_only=True`), a TorchScript
            archive, or `package:NAME` for the one weight file inside an installed package.
        named: Whether it was said which of the published weights of the model's name they are like.

    Raises:
        BackboneError: If the file is missing, unsafe, damaged, does not fit the model, says that it wants another
            activation, or could be of CLIP with either and nothing tells.
    """
    in_order = checkpoint.startswith(_PACKAGE)
    path = _package_file(checkpoint.removeprefix(_PACKAGE)) if in_order else Path(checkpoint).expanduser()
    file = read_weights(path, error=BackboneError)
    _check_activation(model, file, named)
    state = file.tensors
    fitted = _fit(model, state) or (_fit_in_order(model, state) if in_order else None)
    if fitted is None:
        raise BackboneError(f"{path.name} does not fit {type(model).__name__}: {_misfit(model, state)}")
    model.load_state_dict(fitted)


def fingerprint_of(model: nn.Module, preprocessing: Preprocessing) -> str:
    """Returns the SHA-256 over the names, shapes, dtypes and bytes of a model's weights and over its preprocessing.

    Args:
        model: The model; parameters and persistent buffers count.
        preprocessing: What the model expects of its images.
    """
    digest = hashlib.sha256(json.dumps(preprocessing.identity(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def why_other(fingerprint: str, model: nn.Module, preprocessing: Preprocessing) -> str:
    """Says why a fingerprint is not that of a model, as the end of a message.

    Args:
        fingerprint: The other fingerprint.
        model: The model.
        preprocessing: What the model expects of its images.

    Returns:
        A reason and a cure if the fingerprint is of the same weights, from before crop modes were known; else nothing.
    """
    cropped = dataclasses.replace(preprocessing, crop_mode="center")
    if cropped == preprocessing or fingerprint != fingerprint_of(model, cropped):
        return ""
    return (
        f": the weights are the same, but images were cropped then, and crop_mode is {preprocessing.crop_mode!r} now; "
        "to go on as before, set pretrained_cfg_overlay: {crop_mode: center} among the backbone's arguments"
    )


def _package_file(package: str) -> Path:
    if "." in package:
        # To look into a package imports it.
        check_trusted(package, "checkpoint")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(f"checkpoint 'package:{package}': no package of that name is installed")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    if len(files) != 1:
        raise BackboneError(
            f"checkpoint 'package:{package}': expected one weight file, found {[f.name for f in files]}"
        )
    return files[0]


def _check_activation(model: nn.Module, file: WeightFile, named: bool) -> None:
    """Refuses weights of CLIP that want, or may want, the activation of timm's other model of the same shapes.

    timm itself publishes OpenAI's weights with GELU too, under the tag `openai` of the plain names; who writes that tag
    gets that model.
    """
    config = getattr(model, "pretrained_cfg", {})
    name, plain = str(config.get("architecture", "")), "_clip_quickgelu_"
    quick = plain in name
    other = name.replace(plain, "_clip_") if quick else name.replace("_clip_", plain)
    if other == name or not timm.is_model(other):
        return
    if file.gelu if quick else file.openai and config.get("tag") != "openai":
        wanted = "GELU" if quick else "QuickGELU, as OpenAI's do"
        raise BackboneError(
            f"{file.path.name} holds weights that want {wanted}; the backbone of that kind is {other!r}"
        )
    if file.is_clip and not (quick or named or file.gelu):
        raise BackboneError(
            f"{file.path.name} does not say whether its weights want QuickGELU, as OpenAI's do, or GELU; name the "
            f"backbone {other!r}, or with a tag, such as '{name}.{config.get('tag')}'"
        )


def _fit(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Returns the state under the model's names, or None if it does not fit."""
    for convert in (dict, _family_converter(model)):
        try:
            candidate = convert(dict(state)) if convert else None
        except (KeyError, RuntimeError, AttributeError, IndexError):
            # The family's converter did not recognise the format; the caller says what is missing.
            candidate = None
        if candidate is not None and _matches(model, candidate):
            return {name: candidate[name] for name in model.state_dict()}
    return None


def _misfit(model: nn.Module, state: dict[str, Tensor]) -> str:
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected and not _is_classifier(model, name)]
    for name in expected.keys() & state.keys():
        if state[name].shape != expected[name].shape:
            return f"{shown(name)} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
    return (
        f"{len(missing)} tensors are missing (such as {shown(missing[:3])}), "
        f"{len(extra)} are not in the model (such as {shown(extra[:3])})"
    )


def _family_converter(model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]] | None:
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return (lambda tensors: convert(tensors, model)) if convert else None


def _matches(model: nn.Module, state: dict[str, Tensor]) -> bool:
    expected = model.state_dict()
    if any(name not in state or state[name].shape != tensor.shape for name, tensor in expected.items()):
        return False
    return all(_is_classifier(model, name) for name in state if name not in expected)


def _is_classifier(model: nn.Module, name: str) -> bool:
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return name.startswith(tuple(f"{head}." for head in heads))


def _fit_in_order(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    expected = model.state_dict()
    tensors = list(state.values())[: len(expected)]
    leftover = len(state) - len(expected)
    same = all(tensor.shape == wanted.shape for tensor, wanted in zip(tensors, expected.values(), strict=False))
    # Behind the backbone only a classifier's weight and bias may follow.
    return (
        dict(zip(expected, tensors, strict=True))
        if same and len(tensors) == len(expected) and leftover in (0, 2)
        else None
    )
