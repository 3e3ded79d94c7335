"""Weights of a file into an image-text model: all of them or none, under whichever names they were published."""

from __future__ import annotations

import warnings
from pathlib import Path

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from vimlight.errors import CheckpointError
from vimlight.files.weight_file import WeightFile, read_weights

__all__ = ["BIG_VISION", "fine_tune", "fit", "load_big_vision", "uses_quick_gelu"]

# Arrays of big_vision, which open_clip has a reader of its own for.
BIG_VISION = (".npz", ".npy")
_POSITIONS = ("visual.positional_embedding", "positional_embedding", "text.positional_embedding")


def fine_tune(model: nn.Module, checkpoint: str) -> None:
    """Loads fine-tuned weights on top of a model's own.

    Args:
        model: The model.
        checkpoint: The file.

    Raises:
        CheckpointError: If the file cannot be read, does not fit, or says that it wants another activation.
    """
    file = read_weights(Path(checkpoint).expanduser())
    quick = uses_quick_gelu(model)
    if (file.openai and not quick) or (file.gelu and quick):
        wanted, computed = ("QuickGELU", "GELU") if file.openai else ("GELU", "QuickGELU")
        raise CheckpointError(
            f"{file.path.name} wants {wanted}, but the model that it is loaded on computes {computed}; choose a name "
            f"or pretrained weights with {wanted}"
        )
    fit(model, file)


def fit(model: nn.Module, file: WeightFile) -> None:
    """Loads the weights of a file, in float32.

    Positional embeddings of another length are interpolated as open_clip does, with a warning.

    Args:
        model: The model.
        file: The file.

    Raises:
        CheckpointError: If they do not fit.
    """
    state = _renamed(model, file)
    _interpolate(model, state, file.path)
    misfit = _misfit(model.state_dict(), state)
    if misfit:
        raise CheckpointError(f"{file.path.name} does not fit {type(model).__name__}: {misfit}")
    model.load_state_dict(state)


def load_big_vision(model: nn.Module, path: Path) -> None:
    """Loads arrays of big_vision.

    Args:
        model: A sigmoid model with an image tower of timm.
        path: The file.

    Raises:
        CheckpointError: If they do not fit.
    """
    try:
        open_clip.load_checkpoint(model, str(path))
    except (AttributeError, KeyError, ValueError, RuntimeError, AssertionError, OSError) as error:
        raise CheckpointError(f"{path.name} does not fit {type(model).__name__}: {error}") from error


def uses_quick_gelu(model: nn.Module) -> bool:
    """Tells whether any layer of a model is a QuickGELU."""
    return any(isinstance(module, QuickGELU) for module in model.modules())


def _renamed(model: nn.Module, file: WeightFile) -> dict[str, Tensor]:
    """Returns the tensors under the model's names and with its shapes where a scalar may be a vector of one."""
    tensors = {name: x.float() if x.is_floating_point() else x for name, x in file.tensors.items()}
    if any(name.startswith(("text_model.", "vision_model.")) for name in tensors):
        raise CheckpointError(
            f"{file.path.name} has the names of transformers' image-text models (text_model., vision_model.); give the "
            "same weights as open_clip or OpenAI publish them (open_clip_model.safetensors, ViT-B-32.pt)"
        )
    state = convert_state_dict(model, tensors)
    own = model.state_dict()
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own and state[name].numel() == own[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    # A constant that transformers kept in state dictionaries once.
    return {name: x for name, x in state.items() if name in own or not name.endswith(".embeddings.position_ids")}


def _interpolate(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    for name in _POSITIONS:
        if name not in state or name not in own or state[name].dim() != 2 or own[name].dim() != 2:
            continue
        (found, width), (wanted, own_width) = state[name].shape, own[name].shape
        if found != wanted and width == own_width:
            (resize_pos_embed if name.startswith("visual.") else resize_text_pos_embed)(state, model)
            warnings.warn(
                f"{path.name} has {found} positions ({name}), the model {wanted}: they were interpolated; a model of "
                "the file's own size gives the numbers that it was trained for",
                stacklevel=2,
            )


def _misfit(own: dict[str, Tensor], state: dict[str, Tensor]) -> str | None:
    missing, extra = [name for name in own if name not in state], [name for name in state if name not in own]
    if missing or extra:
        return (
            f"{len(missing)} tensors are missing (such as {missing[:2]}), "
            f"{len(extra)} are not in the model (such as {extra[:2]})"
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            return f"{name!r} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
    return None
