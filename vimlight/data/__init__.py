"""Data: sources by name, seeded few-shot sampling, and the Lightning data modules."""

from __future__ import annotations

from vimlight.data.datamodules import DownstreamDataModule, MidstreamDataModule
from vimlight.data.image_data import ImageDataModule
from vimlight.data.sampling import FewShot, few_shot, random_subset, set_apart
from vimlight.data.sources import SOURCES, list_sources, load_source
from vimlight.data.tables import FileTable, ItemTable, Source, Table, TensorTable
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
