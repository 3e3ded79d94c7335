"""Data: sources by name, seeded few-shot sampling, and the Lightning data modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.data.datamodules import DownstreamDataModule, MidstreamDataModule
    from vimlight.data.image_data import ImageDataModule
    from vimlight.data.sampling import FewShot, few_shot, random_subset, set_apart
    from vimlight.data.source import Source
    from vimlight.data.sources import SOURCES, list_sources, load_source
    from vimlight.data.tables import FileTable, ItemTable, Table, TensorTable
    from vimlight.data.target_files import FieldFiles, MaskFiles
    from vimlight.data.transforms import AUGMENTATIONS, Augmentation

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Augmentation",
    "DownstreamDataModule",
    "FewShot",
    "FieldFiles",
    "FileTable",
    "ImageDataModule",
    "ItemTable",
    "MaskFiles",
    "MidstreamDataModule",
    "Source",
    "Table",
    "TensorTable",
    "few_shot",
    "list_sources",
    "load_source",
    "random_subset",
    "set_apart",
]

_PLACES = {
    "AUGMENTATIONS": "transforms",
    "SOURCES": "sources",
    "Augmentation": "transforms",
    "DownstreamDataModule": "datamodules",
    "FewShot": "sampling",
    "FieldFiles": "target_files",
    "FileTable": "tables",
    "ImageDataModule": "image_data",
    "ItemTable": "tables",
    "MaskFiles": "target_files",
    "MidstreamDataModule": "datamodules",
    "Source": "source",
    "Table": "tables",
    "TensorTable": "tables",
    "few_shot": "sampling",
    "list_sources": "sources",
    "load_source": "sources",
    "random_subset": "sampling",
    "set_apart": "sampling",
}

__getattr__ = lazily(__name__, _PLACES)
