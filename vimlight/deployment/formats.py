"""The files that a deployed model can be written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import nn
from torch.export import ExportedProgram

from vimlight.deployment.registry import FORMATS
from vimlight.errors import ExportError
from vimlight.files.exported import Packed, packed_onnx, packed_program

__all__ = ["Format", "Packable", "Packed", "format_of"]


class Packable(Protocol):
    """What a format may use of a deployed model; see `Deployed`."""

    @property
    def program(self) -> ExportedProgram:
        """The traced graph."""

    @property
    def card(self) -> dict[str, Any]:
        """What it expects and answers."""

    @property
    def model(self) -> nn.Module:
        """The fixed model that was traced."""

    def card_text(self) -> str:
        """Returns the card as JSON."""


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: The files' suffix.
        title: What messages call such a file.
        pack: From a deployed model and a version of the operator set, which only ONNX has, to the content.
    """

    suffix: str
    title: str
    pack: Callable[[Packable, int | None], Packed]


def format_of(path: Path, name: str | None) -> Format:
    """Returns the format of a file.

    Args:
        path: The file.
        name: Name of the format; by the suffix if left out.

    Raises:
        UnknownNameError: If there is no such format.
        ExportError: If the suffix is no format's, or another one's.
    """
    suffixes = {known: entry.suffix for known, entry in FORMATS.items()}
    if name is None:
        name = next((known for known, suffix in suffixes.items() if suffix == path.suffix), None)
        if name is None:
            valid = ", ".join(f"{suffix} ({known})" for known, suffix in suffixes.items())
            raise ExportError(f"the suffix of {path.name!r} is that of no export format; valid: {valid}")
    found = FORMATS[name]
    if path.suffix != found.suffix:
        raise ExportError(f"files of the format {name} end in {found.suffix}, not as {path.name!r} does")
    return found


def _onnx(deployed: Packable, opset: int | None) -> Packed:
    return packed_onnx(deployed.program, deployed.card_text(), deployed.card["outputs"], opset)


def _torch_export(deployed: Packable, opset: int | None) -> Packed:
    if opset is not None:
        raise ExportError("an opset is ONNX's; leave it out for torch_export")
    return packed_program(deployed.program, deployed.card_text())


FORMATS.register("onnx")(Format(".onnx", "ONNX file", _onnx))
FORMATS.register("torch_export")(Format(".pt2", "torch.export program", _torch_export))
