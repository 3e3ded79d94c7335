"""Images and maps of depth, or of another number, in folders side by side: `images/NAME.jpg` with `depth/NAME.npz`."""

from __future__ import annotations

from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.tables import FileTable
from vimlight.data.target_files import FIELD_SUFFIXES, FieldFiles, paired_files

__all__ = ["depth_folder"]


@SOURCES.register("depth_folder")
def depth_folder(
    root: str,
    images: str = "images",
    depth: str = "depth",
    unit: float = 0.001,
    key: str = "depth",
    unknown: float | None = 0.0,
) -> Source:
    """Opens a folder for depth, or for another number of every pixel.

    Args:
        root: A folder with `images/` and `depth/`, or with these in `train/`, `val/` and `test/`, or with `train/` and
            so on in these. Maps are `.npz`, `.npy` or 16-bit `.png` files under the images' names.
        images: Name of the folders of images.
        depth: Name of the folders of maps.
        unit: What one step of a PNG's pixels is worth.
        key: Name of the array in `.npz` files.
        unknown: The value of pixels that are unknown; none if every finite value counts.

    Raises:
        DataError: If a folder or a map is missing.
    """
    folder = existing_folder(root)
    tables = {
        split: FileTable(files, FieldFiles(partners, unit, key, unknown), folder)
        for split, (files, partners) in paired_files(folder, images, depth, FIELD_SUFFIXES).items()
    }
    return Source(folder.name, "depth", (), **tables)
