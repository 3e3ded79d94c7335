"""Means of tensors that are exact where they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["mean_of"]


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the mean of tensors, name by name, in their own dtype.

    Args:
        states: Tensors of the same names and shapes.
    """
    # In double precision the sum of equal numbers is exact, so that their mean is what they are.
    return {
        name: torch.stack([state[name].double() for state in states]).sum(dim=0).div(len(states)).to(tensor.dtype)
        for name, tensor in states[0].items()
    }
