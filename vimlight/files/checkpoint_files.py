"""Checkpoints as files: written beside their name and renamed, and looked at before they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from vimlight.errors import CheckpointError
from vimlight.files.atomic import write_whole
from vimlight.files.checked_members import CheckedMembers
from vimlight.files.weight_file import WEIGHT_FAULTS
from vimlight.masking import masked

__all__ = ["CheckpointFiles", "load_checkpoint_file"]

# What modules and data of one's own were made with.
_SETTINGS = ("hyper_parameters", "datamodule_hyper_parameters")


def load_checkpoint_file(path: str | Path, map_location: Any = "cpu") -> Any:
    """Reads what `torch.save` wrote, with a look at its checksums; nothing in it is run.

    Args:
        path: The file.
        map_location: As in `torch.load`.

    Raises:
        CheckpointError: If it cannot be read, was altered, or holds more than tensors and plain values.
    """
    name = f"checkpoint {str(path)!r}"
    try:
        file = CheckedMembers(Path(path), name, CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror}") from error
    with file:
        try:
            found = torch.load(cast("IO[bytes]", file), map_location=map_location, weights_only=True)
        except WEIGHT_FAULTS as error:
            file.check()
            raise CheckpointError(f"{name} is damaged, or holds more than tensors and plain values") from error
        file.check()
    return found


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's way to write and read checkpoints, for files of this machine.

    Lightning's own writes where temporary files go and moves the file, which between file systems copies it: killed
    meanwhile, the good file is gone. Here the new one is whole, and on the disk, before the old one is replaced.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint, whole or not at all, and less what is secret in its settings.

        Args:
            checkpoint: What it holds.
            path: The file; addresses such as `s3://` are left to Lightning.
            storage_options: Left to Lightning.

        Raises:
            ConfigError: If it cannot be written.
        """
        checkpoint = {key: masked(value) if key in _SETTINGS else value for key, value in checkpoint.items()}
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(path, content.getvalue(), overwrite=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint.

        Args:
            path: The file; addresses such as `s3://` are left to Lightning.
            map_location: As in `torch.load`; the CPU by default.
            weights_only: Taken as true for files.

        Raises:
            CheckpointError: If it cannot be read, was altered, or holds more than tensors and plain values.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only)
        content: dict[str, Any] = load_checkpoint_file(path, "cpu" if map_location is None else map_location)
        return content
