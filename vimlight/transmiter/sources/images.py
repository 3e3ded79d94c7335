"""The images behind a cache, found again by what its manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import vimlight.data
from vimlight.data import Augmentation, ImageDataModule, Table
from vimlight.errors import ConfigError, DataError
from vimlight.transmiter.cache import LogitCache
from vimlight.transmiter.cache.images import ImageViews
from vimlight.transmiter.models.image_text import ImageInput

__all__ = ["image_input_of", "image_table", "views_of"]


def image_table(cache: LogitCache) -> Table:
    """Opens the data set of a cache.

    Args:
        cache: A cache that `vimlight cache build` made.

    Returns:
        Its images in its order, with the labels of the cache: the data set may have its classes in another order by
        now. Without labels they are -1.

    Raises:
        ConfigError: If the cache does not say where its images are.
        DataError: If they are others by now.
    """
    settings: dict[str, Any] = {key: value for key, value in cache.manifest.data.items() if key != "tuning"}
    kind = getattr(vimlight.data, str(settings.pop("module", "")), None)
    if not (isinstance(kind, type) and issubclass(kind, ImageDataModule)):
        raise ConfigError(
            f"cache {str(cache.path)!r} does not say where its images are; build it with vimlight cache build, or tune "
            "on its features: clip_adapter, taskres, tip_adapter_f, linear_probe"
        )
    data = kind(**settings)
    table: Table = data.predict_table if cache.split == "predict" else data.tables[cache.split]
    if list(table.ids) != list(cache.ids):
        raise DataError(
            f"the images of cache {str(cache.path)!r} are not those that its data set {data.dataset!r} has now; build "
            "it again"
        )
    return table.with_targets(torch.full((len(cache),), -1) if cache.labels is None else cache.labels)


def image_input_of(cache: LogitCache) -> ImageInput:
    """Returns what the model of a cache expects of its images.

    Raises:
        ConfigError: If the cache does not say.
    """
    settings = _tuples(cache.manifest.preprocessing)
    try:
        return ImageInput(**settings)
    except TypeError as error:
        raise ConfigError(f"cache {str(cache.path)!r} does not say how its images were prepared") from error


def views_of(cache: LogitCache) -> ImageViews:
    """Returns how each image of a cache was shown, all views included."""
    settings = _tuples(cache.manifest.augmentation)
    seed = settings.pop("seed", 0)
    augmentation = Augmentation(**settings) if settings else None
    return ImageViews(image_input_of(cache), cache.num_views, augmentation, seed)


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turns the lists that JSON knows back into tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
