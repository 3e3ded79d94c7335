"""What a run has predicted so far, in hidden files beside the table, from which the next one goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import lightning.pytorch as pl

from vimlight import __version__
from vimlight.data import ImageDataModule
from vimlight.files.atomic import write_whole
from vimlight.files.tensor_file import sha256_of
from vimlight.training.base import SupervisedModule

__all__ = ["PredictedParts", "plan_of"]

Rows = list[dict[str, Any]]
# Of parts; those of another format have folders of their own.
_FORMAT = 2
# Little enough to lose, and long enough that writing costs nothing beside it.
_SECONDS = 10.0


class PredictedParts:
    """The rows of images by their places in the data, of this run and of interrupted ones with the same plan.

    The hidden directory has a folder for each plan, named by its hash, so that rows of other weights, images or
    settings never meet; those of other plans are removed. What was damaged, or whose files are gone, is predicted
    again. Several processes may write, if they see one file system.

    Args:
        table: The table that is to be written.
        plan: What the rows depend on.

    Attributes:
        rows: The rows of each place that were found.
        files: Folder for what is predicted as files.
    """

    def __init__(self, table: Path, plan: Mapping[str, Any]) -> None:
        self._runs = table.with_name(f".{table.name}.partial")
        self._own = self._runs / hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
        self.files = self._own / "files"
        self.rows: dict[int, Rows] = {}
        self._pending: list[tuple[int, Rows]] = []
        self._written = time.monotonic()
        for other in self._runs.glob("*"):
            if other != self._own:
                shutil.rmtree(other, ignore_errors=True)
        for part in self._own.glob("part-*.json"):
            self.rows |= {place: rows for place, rows in _read(part).items() if self._have_files(rows)}

    def add(self, places: Sequence[int], rows: Sequence[Rows]) -> None:
        """Adds a batch, which is on the disk at most ten seconds and a batch later.

        Args:
            places: Where its images lie in the data.
            rows: Their rows.
        """
        self._pending += zip(places, rows, strict=False)
        if self._pending and time.monotonic() - self._written >= _SECONDS:
            file = self._own / f"part-{self._pending[0][0]:08d}.json"
            write_whole(file, _text(self._pending), overwrite=True)
            self._pending, self._written = [], time.monotonic()

    def remove(self) -> None:
        """Removes what is no longer needed once the table is there."""
        shutil.rmtree(self._own, ignore_errors=True)
        # Others may be at work in it.
        with suppress(OSError):
            self._runs.rmdir()

    def _have_files(self, rows: Rows) -> bool:
        """Tells whether the files are there that rows name, below the name of the folder that they will lie in."""
        named = [PurePosixPath(row["file"]) for row in rows if "file" in row]
        return all((self.files / file.relative_to(file.parts[0])).is_file() for file in named)


def _text(rows: Sequence[tuple[int, Rows]]) -> bytes:
    """Returns a part: a line with the checksum of the next, which has the rows as JSON."""
    content = json.dumps(rows, separators=(",", ":")).encode()
    return b"%08x\n%s" % (zlib.crc32(content), content)


def _read(part: Path) -> dict[int, Rows]:
    """Returns the rows of a part; none of one that is damaged, whose images are predicted again."""
    try:
        stated, _, content = part.read_bytes().partition(b"\n")
    except OSError:
        return {}
    whole = stated == b"%08x" % zlib.crc32(content)
    return dict(json.loads(content)) if whole else {}


def plan_of(trainer: pl.Trainer, module: SupervisedModule, data: ImageDataModule) -> dict[str, Any]:
    """Returns what predictions depend on: the weights, the images and how they are prepared.

    Args:
        trainer: The trainer.
        module: The model, with its weights loaded.
        data: The images.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    own = {name: value for name, value in tensors.items() if not name.startswith("backbone.")}
    return {
        "format": _FORMAT,
        "version": __version__,
        "backbone": module.backbone.fingerprint,
        "weights": sha256_of({name: value.detach().cpu().contiguous() for name, value in own.items()}),
        "task": module.task.kind,
        "class_names": list(module.task.class_names),
        "images": data.predict_table.digest(),
        "preprocessing": data.preprocessing.as_dict(),  # type: ignore[attr-defined]  # the model's is the backbone's
        "batch_size": data.batch_size,
        "precision": str(trainer.precision),
    }
