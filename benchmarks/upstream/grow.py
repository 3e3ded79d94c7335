"""Widens a trained model to twice the width without changing what it computes.

Every channel is copied, and the weights that read a channel are split at random between the two copies [Chen et al.
2016, "Net2Net"; Chen et al. 2022, "bert2BERT"]. The split differs from weight to weight, so that the copies drift apart
in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["grow"]

_HEAD_PARTS = 3  # queries, keys and values stand one after another in one weight


@torch.no_grad()
def grow(small: dict[str, Tensor], large: nn.Module, seed: int) -> None:
    """Loads a state dictionary into a model that is equal or twice as wide at every layer.

    Args:
        small: State dictionary of the narrow model.
        large: The wide model, with the same names and the same width of a head; changed in place.
        seed: Seed of the random splits.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: _widened(small[key], target.shape, _HEAD_PARTS if ".qkv." in key else 1, generator)
        for key, target in large.state_dict().items()
    }
    large.load_state_dict(state)


def _widened(weight: Tensor, shape: torch.Size, parts: int, generator: torch.Generator) -> Tensor:
    if weight.ndim > 1 and shape[1] == 2 * weight.shape[1] and not _is_embedding(weight):
        weight = _split_inputs(weight, generator)
    for dim, (have, want) in enumerate(zip(weight.shape, shape, strict=True)):
        if want == 2 * have:
            pieces = weight.chunk(parts, dim) if dim == 0 else [weight]
            weight = torch.cat([copy for piece in pieces for copy in (piece, piece)], dim)
    return weight


def _is_embedding(weight: Tensor) -> bool:
    """Position embeddings `(1, tokens, width)` are the only tensors of three dimensions; they read no channel."""
    return weight.ndim == 3


def _split_inputs(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Doubles dimension 1: weights `(out, in, ...)` become two that add up to them."""
    share = 0.5 + 0.25 * torch.randn(weight.shape, generator=generator)
    return torch.cat([weight * share, weight * (1 - share)], dim=1)
