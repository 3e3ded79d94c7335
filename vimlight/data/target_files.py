"""Targets that lie in files of their own, one an image, read when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vimlight.data.pictures import UNREADABLE, grey_step, open_picture, opened, upright
from vimlight.data.sources.image_folder import VALIDATION_NAMES, image_files
from vimlight.errors import DataError, nearest, shown
from vimlight.files.arrays import ARRAY_FAULTS, load_array, load_member
from vimlight.tasks.targets import IGNORE, check_mask

__all__ = ["FIELD_SUFFIXES", "FieldFiles", "MaskFiles", "paired_files"]

FIELD_SUFFIXES = (".npz", ".npy", ".png")
# Bytes of a map: as many pixels as PIL opens, eight bytes each.
_MOST = 1 << 31
_SPLITS = {"train": ("train", "training"), "val": VALIDATION_NAMES, "test": ("test", "testing")}


class MaskFiles(Sequence[Tensor]):
    """Masks as image files whose pixels are class numbers, `(H, W)` uint8 each.

    Pixels of one bit are the numbers 0 and 1, or 0 and 255 where `values` has 255.

    Args:
        paths: N files, grey or with a palette.
        num_classes: Number of classes C.
        values: The pixels' value of each class, where it is not the number itself; all other values are unknown.
    """

    def __init__(self, paths: Sequence[Path], num_classes: int, values: Sequence[int] | None = None) -> None:
        self._paths = list(paths)
        self._num_classes = num_classes
        self._table: NDArray[np.uint8] | None = None
        if values is not None:
            self._table = np.full(256, IGNORE, dtype=np.uint8)
            self._table[list(values)] = np.arange(len(values))
        self._white = 255 if values is not None and 255 in values else 1

    def __len__(self) -> int:
        """Returns the number of masks N."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # no slices
        """Reads one mask.

        Raises:
            DataError: If the file cannot be read, has colours instead of numbers, or a class that does not exist.
        """
        path = self._paths[index]
        try:
            pixels = self._pixels(path)
        except UNREADABLE as error:
            raise DataError(f"cannot read mask {path}: {error}") from error
        mask = torch.from_numpy(pixels if self._table is None else self._table[pixels])
        try:
            check_mask(mask, self._num_classes)
        except DataError as error:
            raise DataError(f"mask {path}: {error}") from error
        return mask

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        with opened(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise DataError(
                    f"mask {path} is {image.mode}, expected a grey or palette image whose pixels are class numbers"
                )
            if grey_step(image) > 1 and self._table is None:
                raise DataError(
                    f"mask {path} has grey pixels of 2 or 4 bits, which readers stretch to 255; save it with 8 bits"
                )
            pixels = np.array(upright(image), dtype=np.uint8)
            return pixels * np.uint8(self._white) if image.mode == "1" else pixels


class FieldFiles(Sequence[Tensor]):
    """Maps of real numbers, such as depth, as `.npz`, `.npy` or 16-bit `.png` files, `(H, W)` float32 each.

    Args:
        paths: N files.
        unit: What one step of a PNG's pixels is worth.
        key: Name of the array in `.npz` files.
        unknown: The value of pixels that are unknown, beside what is not finite.
    """

    def __init__(
        self, paths: Sequence[Path], unit: float = 0.001, key: str = "depth", unknown: float | None = 0.0
    ) -> None:
        self._paths = list(paths)
        self._unit, self._key, self._unknown = unit, key, unknown

    def __len__(self) -> int:
        """Returns the number of maps N."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # no slices
        """Reads one map; NaN where it is unknown.

        Raises:
            DataError: If the file cannot be read or does not hold `(H, W)` numbers.
        """
        path = self._paths[index]
        try:
            values = self._read(path)
        except (*UNREADABLE, *ARRAY_FAULTS) as error:
            raise DataError(f"cannot read {path}: {error}") from error
        if values.ndim != 2 or values.nbytes > _MOST:
            raise DataError(f"{path} holds an array {values.shape}, expected (H, W)")
        field = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        known = field.isfinite() if self._unknown is None else field.isfinite() & (field != self._unknown)
        return torch.where(known, field, torch.nan)

    def _read(self, path: Path) -> NDArray[Any]:
        values: NDArray[Any]
        if path.suffix == ".png":
            image = open_picture(path)
            if image.mode == "P":
                raise DataError(f"{path} has a palette, expected a grey PNG whose pixels are numbers")
            values = np.asarray(image, dtype=np.float32) * np.float32(self._unit)
            return values
        # A copy on write: nothing is read before its shape was looked at.
        values = load_array(path, "c") if path.suffix == ".npy" else self._member(path)
        if values.dtype.kind not in "fiub":
            raise DataError(f"{path} holds {values.dtype}, not real numbers")
        return values

    def _member(self, path: Path) -> Any:
        try:
            return load_member(path, self._key, _MOST)
        except KeyError as error:
            raise DataError(f"{path} has no array {self._key!r}, only {shown(error.args[0])}") from error


def paired_files(
    root: Path, images: str, targets: str, suffixes: Sequence[str]
) -> Mapping[str, tuple[list[Path], list[Path]]]:
    """Finds images and the files of their targets, which have the same name but for the suffix.

    Args:
        root: A folder with `images/` and `targets/`, or with these in `train/`, `val/` and `test/`, or with `train/`
            and so on in these.
        images: Name of the folders of images.
        targets: Name of the folders of targets.
        suffixes: Suffixes of the targets' files.

    Returns:
        Images and targets by split; of folders without splits all are for training.

    Raises:
        DataError: If a folder or a target is missing.
    """
    found: dict[str, tuple[list[Path], list[Path]]] = {}
    for split, names in _SPLITS.items():
        for name in names:
            for pair in ((root / name / images, root / name / targets), (root / images / name, root / targets / name)):
                if pair[0].is_dir():
                    found.setdefault(split, _pairs(*pair, suffixes))
    if not found and (root / images).is_dir():
        found["train"] = _pairs(root / images, root / targets, suffixes)
    if "train" not in found:
        raise DataError(f"{root} has no folder {images!r} of images, nor one in 'train'")
    return found


def _pairs(images: Path, targets: Path, suffixes: Sequence[str]) -> tuple[list[Path], list[Path]]:
    if not targets.is_dir():
        beside = [folder.name for folder in targets.parent.glob("*/")] if targets.parent.is_dir() else []
        close = nearest(targets.name, beside, 1)
        raise DataError(f"folder {targets} does not exist" + (f"; did you mean {close[0]!r}?" if close else ""))
    files, partners = image_files(images), []
    for file in files:
        stem = targets / file.relative_to(images)
        partner = next((path for suffix in suffixes if (path := stem.with_suffix(suffix)).is_file()), None)
        if partner is None:
            raise DataError(f"image {file} has no target {stem.with_suffix(suffixes[0])}")
        partners.append(partner)
    return files, partners
