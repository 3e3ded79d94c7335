"""What a checkpoint says of itself, entry by entry: of the type that is expected, or an error that names the entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from vimlight.errors import CheckpointError, shown
from vimlight.files.json_text import check_version

__all__ = [
    "CHECKPOINT_VERSION", "check_format", "made_of", "stated", "stated_names", "stated_numbers", "stated_tensors",
    "stated_texts", "tensors_in",
]  # fmt: skip

# Of what stands under "vimlight" in a checkpoint. The first checkpoints do not say it.
CHECKPOINT_VERSION = 1
_ABOUT = "vimlight"
_REQUIRED = object()
T = TypeVar("T")


def check_format(checkpoint: Mapping[str, Any], name: str = "the checkpoint") -> None:
    """Checks that a checkpoint is of a format that is read.

    Args:
        checkpoint: The checkpoint.
        name: What messages call it.

    Raises:
        CheckpointError: If it is none of vimlight's, or of a newer one.
    """
    check_version(_about(checkpoint, name), CHECKPOINT_VERSION, CheckpointError, what=name, unstated=1)


def stated(checkpoint: Mapping[str, Any], key: str, kind: Any, default: Any = _REQUIRED) -> Any:
    """Returns what a checkpoint says under a key.

    Args:
        checkpoint: The checkpoint.
        key: The key.
        kind: The type, or types as `str | None`.
        default: What is returned where it says nothing; without one, it must say something.

    Raises:
        CheckpointError: If the checkpoint is none of vimlight's, lacks the entry, or has one of another type.
    """
    about = _about(checkpoint)
    if key not in about and default is not _REQUIRED:
        return default
    if key not in about:
        raise CheckpointError(f"the checkpoint does not say its {key!r}; it was altered")
    if not isinstance(about[key], kind):
        raise _wrong(key, about[key])
    return about[key]


def stated_names(checkpoint: Mapping[str, Any], key: str, default: Any = _REQUIRED) -> list[str]:
    """Returns a list of texts; see `stated`."""
    found = stated(checkpoint, key, list, default)
    if not all(isinstance(name, str) for name in found):
        raise _wrong(key, found)
    return list(found)


def stated_texts(checkpoint: Mapping[str, Any], key: str) -> dict[str, str] | None:
    """Returns texts by name, nothing where the checkpoint has none; see `stated`."""
    found = stated(checkpoint, key, dict | None, None)
    if not all(isinstance(text, str) for pair in (found or {}).items() for text in pair):
        raise _wrong(key, found)
    return found  # type: ignore[no-any-return]


def stated_tensors(checkpoint: Mapping[str, Any], key: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by name, nothing where the checkpoint has none.

    Args:
        checkpoint: The checkpoint.
        key: The key.
        expected: Tensors of the names and shapes that they have if they are there.

    Raises:
        CheckpointError: If they are others; see `stated`.
    """
    found = tensors_in(stated(checkpoint, key, dict, {}), key)
    if found and {name: x.shape for name, x in found.items()} != {name: x.shape for name, x in expected.items()}:
        raise CheckpointError(f"the checkpoint's {key!r} has other tensors than the model; were the settings changed?")
    return found


def tensors_in(state: Mapping[Any, Any], key: str) -> dict[str, Tensor]:
    """Returns what should be plain tensors by name.

    Args:
        state: The dictionary.
        key: What a message calls it.

    Raises:
        CheckpointError: If a name is no text, or a value no tensor that holds numbers.
    """
    for name, value in state.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided
        if not (dense and isinstance(name, str)) or value.is_meta or value.is_quantized:
            raise CheckpointError(f"the checkpoint's {key!r} holds no plain tensor under {shown(name)}")
    return dict(state)


def stated_numbers(checkpoint: Mapping[str, Any], key: str) -> list[float] | None:
    """Returns a list of numbers, nothing where the checkpoint has none; see `stated`."""
    found = stated(checkpoint, key, list | None, None)
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in found or ()):
        raise _wrong(key, found)
    return found  # type: ignore[no-any-return]


def made_of(make: Callable[[Any], T], key: str, given: Any) -> T:
    """Makes an object of what a checkpoint says of it.

    Args:
        make: From what it says to the object.
        key: What a message calls it.
        given: What it says.

    Raises:
        CheckpointError: If it cannot be made of that.
    """
    try:
        return make(given)
    except (TypeError, ValueError, AttributeError) as error:
        raise _wrong(key, given) from error


def _about(checkpoint: Mapping[str, Any], name: str = "the checkpoint") -> dict[str, Any]:
    about = checkpoint.get(_ABOUT)
    if not isinstance(about, dict):
        raise CheckpointError(f"{name} was not written by vimlight: it does not say what it belongs to")
    return about


def _wrong(key: str, value: Any) -> CheckpointError:
    return CheckpointError(f"the checkpoint's {key!r} makes no sense: {shown(value)}; it was altered")
