"""What a file says of itself, compared with what it holds before memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from vimlight.errors import VimlightError

__all__ = ["check_shapes", "outline"]

M = TypeVar("M", bound=nn.Module)
# What layers raise of sizes that are none, or that no tensor can have.
_FAULTS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, ArithmeticError, AssertionError)


def outline(make: Callable[[], M], what: str, error: type[VimlightError]) -> M:
    """Makes a module whose tensors have shapes and no numbers, which takes no memory however large they are.

    Args:
        make: Function that makes the module, on torch's default device.
        what: What it is, as messages say it.
        error: What to raise.

    Raises:
        VimlightError: `error`, if no such module can be made; those that `make` raises are left as they are.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return make()
    except VimlightError:
        raise
    except _FAULTS as reason:
        first = (str(reason).splitlines() or [type(reason).__name__])[0]
        raise error(f"{what} cannot be made by its settings: {first[:150]}") from reason


def check_shapes(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str, error: type[VimlightError]
) -> None:
    """Compares the shapes of tensors that have the same name.

    Args:
        found: The tensors of a file.
        expected: Those of an outline.
        what: What they are of, as messages say it.
        error: What to raise.

    Raises:
        VimlightError: `error`, if two differ.
    """
    for key in (key for key in expected if key in found):
        shape, wanted = tuple(found[key].shape), tuple(expected[key].shape)
        if shape != wanted:
            raise error(f"{what}: tensor {key!r} has shape {shape}, but {wanted} is expected")
