"""Building a cache: a model over the images of a split, part by part."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vimlight.data import ImageDataModule, Table
from vimlight.errors import ConfigError, DataError, unknown_name
from vimlight.progress import track
from vimlight.transmiter.cache.assembly import refuse_existing
from vimlight.transmiter.cache.encode import encode_images
from vimlight.transmiter.cache.heads import Vocabulary, auxiliary_names, text_head
from vimlight.transmiter.cache.images import ImageViews
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.partitions import partition_indices
from vimlight.transmiter.cache.processes import barrier, from_first, rank, world_size
from vimlight.transmiter.cache.writer import CacheWriter
from vimlight.transmiter.models.image_text import ImageTextModel
from vimlight.transmiter.models.templates import templates_of

__all__ = ["CacheSettings", "build_cache"]

# Few enough images that little is lost by an interruption, enough that the parts are not many.
_PART_ROWS = 256
_SPLITS = ("train", "val", "test", "predict")


@dataclass(frozen=True)
class CacheSettings:
    """What a cache is to hold.

    Attributes:
        split: `"train"`, `"val"`, `"test"`, or `"predict"` for a folder without labels.
        templates: Prompts of the class names; see `templates_of`.
        aux_templates: Prompts of the auxiliary names, if others.
        vocabulary: The auxiliary classes; none by default.
        partitions: Named sets of classes, such as base and novel: indices, names, or ranges like `"0-49"`.
        views: Number of views of each training image; those beyond the first are augmented as the data says. Other
            splits have one view.
    """

    split: str = "train"
    templates: str | list[str] = "a photo of a {}."
    aux_templates: str | list[str] | None = None
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    partitions: dict[str, str | list[int | str]] | None = None
    views: int = 1


def build_cache(
    path: str | os.PathLike[str],
    model: ImageTextModel,
    data: ImageDataModule,
    settings: CacheSettings | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> LogitCache:
    """Runs a model over the images of a split and keeps its features and text head.

    Where `torch.distributed` runs, each process takes a share of the parts; the result is the same byte for byte. After
    an interruption, the same call goes on where it stopped.

    Args:
        path: The cache's directory, which must not exist yet.
        model: The model, on the device and in the precision to compute with.
        data: The images; its batch size, workers, augmentation and seed apply.
        settings: What the cache is to hold.
        overwrite: Whether a cache of that name is replaced.
        progress: Whether to show progress bars.

    Returns:
        The cache, opened.

    Raises:
        CacheError: If the name is taken, or an interrupted run had other settings.
        ConfigError: If a setting is wrong.
        DataError: If an image cannot be read, or the data set is no classification.
        UnknownNameError: If there is no such split, set of templates or strategy.
    """
    target, settings = Path(path).expanduser(), settings or CacheSettings()
    refuse_existing(target, overwrite, "--overwrite true")
    show = progress and rank() == 0
    table, views = _table(data, settings.split), _views(model, data, settings)
    manifest = _plan(model, data, settings, views, show).replace(rows=len(table))
    # The first process makes the head; a mistake in it shows before hours are spent on images.
    head = text_head(model, manifest, progress=show) if rank() == 0 else None
    writer = CacheWriter(
        target,
        manifest,
        ids=table.ids,
        labels=None if bool((table.targets < 0).all()) else table.targets,
        part_rows=data.batch_size * max(1, _PART_ROWS // data.batch_size),
        settings={"batch_size": data.batch_size, "device": model.device.type},
        overwrite=overwrite,
    )
    _write_share(writer, model, table, views, data, show)
    if rank() == 0:
        writer.finish(head)
    barrier()
    return LogitCache.open(target)


def _plan(
    model: ImageTextModel, data: ImageDataModule, settings: CacheSettings, views: ImageViews, show: bool
) -> Manifest:
    """Returns the manifest but for what only the finished files tell."""
    prompts = templates_of(settings.templates)
    aux_prompts = prompts if settings.aux_templates is None else templates_of(settings.aux_templates)
    aux_names = auxiliary_names(settings.vocabulary, data.class_names, model, aux_prompts, progress=show)
    return Manifest(
        model=model.name,
        split=settings.split,
        class_names=tuple(data.class_names),
        aux_names=tuple(from_first(aux_names)),
        views=views.count,
        width=int(model.encode_text(["a"]).shape[1]),
        dtype="float16",
        partitions=partition_indices(settings.partitions or {}, data.class_names),
        weights=model.weights,
        preprocessing=views.image_input.as_dict(),
        text={"templates": prompts, "aux_templates": aux_prompts},
        data=_data_settings(data),
        augmentation=_augmentation_settings(views),
        vocabulary=dataclasses.asdict(settings.vocabulary),
        model_arguments={**model.arguments, "precision": model.precision},
    )


def _write_share(
    writer: CacheWriter, model: ImageTextModel, table: Table, views: ImageViews, data: ImageDataModule, show: bool
) -> None:
    """Writes this process's share of the parts that are missing."""
    barrier()
    missing = writer.missing()
    # Nobody writes before all have looked.
    barrier()
    parts = missing[rank() :: world_size()]
    rows = [row for part in parts for row in writer.part_range(part)]
    batches = encode_images(model, table, views, rows, batch_size=data.batch_size, num_workers=data.num_workers)
    for part in track(parts, f"images of {writer.manifest.split}, in parts", show):
        number = -(-len(writer.part_range(part)) // data.batch_size)
        writer.put(part, torch.cat(list(islice(batches, number))))
    barrier()


def _table(data: ImageDataModule, split: str) -> Table:
    if split not in _SPLITS:
        raise unknown_name("split", split, _SPLITS)
    if data.kind != "classification":
        raise DataError(f"data set {data.dataset!r} is {data.kind}; a cache takes classifications, one label an image")
    return data.predict_table if split == "predict" else data.tables[split]


def _views(model: ImageTextModel, data: ImageDataModule, settings: CacheSettings) -> ImageViews:
    count = settings.views if settings.split == "train" else 1
    image_input = model.image_input
    if data.image_size is not None:
        height, width = (data.image_size,) * 2 if isinstance(data.image_size, int) else data.image_size
        image_input = dataclasses.replace(image_input, size=(height, width))
    if settings.views < 1:
        raise ConfigError(f"views must be at least 1, got {settings.views}")
    if count > 1 and data.augmentation is None:
        raise ConfigError(f"views: {count} would all be the same; set the data's augment to light, photo or strong")
    return ImageViews(image_input, count, data.augmentation, data.seed)


def _augmentation_settings(views: ImageViews) -> dict[str, Any]:
    if views.count == 1 or views.augmentation is None:
        return {}
    settings: dict[str, Any] = {**dataclasses.asdict(views.augmentation), "seed": views.seed}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def _data_settings(data: ImageDataModule) -> dict[str, Any]:
    names = (
        "dataset", "dataset_args", "background", "seed", "test_limit", "shots", "val_shots", "val_fraction",
        "predict_folder",
    )  # fmt: skip
    found = {name: getattr(data, name) for name in names if getattr(data, name, None) is not None}
    corrupt = {"skip_corrupt": True} if data.skip_corrupt else {}
    return {"module": type(data).__name__, **found, **corrupt}
