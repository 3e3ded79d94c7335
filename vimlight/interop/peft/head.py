"""The classifier that was trained along with an adapter, and a norm in front of it, as a module's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call

from vimlight.backbone import Backbone
from vimlight.errors import CheckpointError, shown
from vimlight.interop.base import affine_head
from vimlight.interop.peft.config import CONFIG, WEIGHTS

__all__ = ["read_head"]


def read_head(saved: Sequence[str], tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor] | None:
    """Returns what an adapter trained along whole as the tensors of an `AffineHead`; nothing if that is nothing.

    Args:
        saved: What `modules_to_save` names.
        tensors: The tensors that belong to no layer's factors, by name.
        backbone: The backbone.

    Raises:
        CheckpointError: If there is anything but a linear classifier and a norm whose scale and shift it can take in.
    """
    classifier = cast("dict[str, Any]", backbone.model.pretrained_cfg).get("classifier")
    found = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{classifier}.")}
    others = {key: tensor for key, tensor in tensors.items() if key not in found}
    own = backbone.model.state_dict()
    stray = next((key for key in others if key not in own or own[key].shape != others[key].shape), None)
    if stray is not None:
        raise CheckpointError(f"{WEIGHTS} holds {shown(stray)}, which is no part of a LoRA module of {backbone.name!r}")
    if saved and not tensors:
        raise CheckpointError(f"{CONFIG} says that {shown(saved[0])} was trained along whole, but {WEIGHTS} lacks it")
    if not tensors:
        return None
    head = affine_head({key.removeprefix(f"{classifier}."): x for key, x in found.items()}, backbone) if found else None
    return _behind(head, others, backbone, classifier) if others else head


def _behind(
    head: dict[str, Tensor] | None, trained: dict[str, Tensor], backbone: Backbone, classifier: Any
) -> dict[str, Tensor]:
    """Takes the trained scale and shift of the last norm into the classifier behind it."""
    module = next(iter(trained)).rpartition(".")[0]
    move = _move(module, trained, backbone) if head else None
    if head is None or move is None:
        raise CheckpointError(
            f"the adapter trained {shown(module)} along whole; a module can keep only the classifier, {classifier!r}, "
            "and the norm right in front of it"
        )
    scale, shift = move
    return {**head, "weight": head["weight"] * scale, "bias": head["bias"] + head["weight"] @ shift}


@torch.no_grad()
def _move(module: str, trained: dict[str, Tensor], backbone: Backbone) -> tuple[Tensor, Tensor] | None:
    """Returns by which scale and shift the features change with a trained norm, nothing if it is not so simple.

    What the norm does to the features is tried out, since what follows it differs from model to model.
    """
    own = backbone.model.state_dict()
    if set(trained) != {f"{module}.weight", f"{module}.bias"}:
        return None
    scale = trained[f"{module}.weight"] / own[f"{module}.weight"]
    shift = trained[f"{module}.bias"] - scale * own[f"{module}.bias"]
    images = torch.randn(2, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(0))
    before, after = backbone.model(images), functional_call(backbone.model, trained, (images,))
    if scale.shape != before.shape[1:] or not torch.allclose(after, before * scale + shift, rtol=1e-3, atol=1e-4):
        return None
    return scale, shift
