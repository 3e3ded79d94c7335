"""Caches of a fine-tuned model: the images of a zero-shot cache, in its order and in its views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.files.tensor_file import sha256_of
from vimlight.progress import track
from vimlight.transmiter.cache import LogitCache
from vimlight.transmiter.cache.assembly import assemble, stored
from vimlight.transmiter.cache.images import read_ahead
from vimlight.transmiter.sources.base import Tuning
from vimlight.transmiter.sources.images import image_table, views_of

__all__ = ["write_tuned"]

_BLOCK = 4096


@torch.no_grad()
def write_tuned(
    tuning: Tuning,
    cache: LogitCache,
    path: Path,
    *,
    name: str,
    facts: dict[str, Any],
    batch_size: int = 256,
    num_workers: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> LogitCache:
    """Writes what a fine-tuned model says of the images of a zero-shot cache, among the task classes.

    Args:
        tuning: The fine-tuned model, in eval mode.
        cache: The zero-shot cache.
        path: Directory of the new cache.
        name: What the fine-tuned model is called.
        facts: How it came about, for the manifest.
        batch_size: Images at a time, where images are read.
        num_workers: Processes that read them.
        overwrite: Whether a cache of that name is replaced.
        progress: Whether to show a progress bar.

    Returns:
        The new cache, opened.

    Raises:
        CacheError: If the name is taken.
        DataError: If the images are others by now.
    """
    head = tuning.head()
    state = {key: value.detach().cpu().contiguous() for key, value in tuning.learned.state_dict().items()}
    manifest = cache.manifest.replace(
        model=name,
        aux_names=(),
        vocabulary={},
        # Whoever loaded the model again would get the one that was not tuned.
        model_arguments={},
        # The image encoder is the same where cached features are read.
        weights=cache.manifest.weights if tuning.reads == "features" else sha256_of(state),
        width=None if head is None else cache.width,
        dtype="float32" if head is None else "float16",
        scale=None,
        bias=None,
        data={**cache.manifest.data, "tuning": {**facts, "zero_shot": cache.hash}},
        files={},
    )
    blocks = (
        _from_features(tuning, cache)
        if tuning.reads == "features"
        else _from_images(tuning, cache, batch_size, num_workers)
    )
    shown = track(blocks, f"{name}, {cache.split}", progress, total=None)
    rows = _stored(manifest, shown, list(cache.ids))
    return assemble(path, manifest, rows, list(cache.ids), cache.labels, head, overwrite)


def _stored(manifest: Any, blocks: Iterator[Tensor], ids: list[str]) -> Iterator[Any]:
    done = 0
    for block in blocks:
        yield stored(manifest, block, done, ids)
        done += len(block)


def _from_features(tuning: Tuning, cache: LogitCache) -> Iterator[Tensor]:
    device = tuning.text.device
    for start in range(0, len(cache), _BLOCK):
        rows = slice(start, start + _BLOCK)
        views = [tuning.rows(cache.features(rows, view=view).to(device)) for view in range(cache.num_views)]
        yield torch.stack(views, dim=1)


def _from_images(tuning: Tuning, cache: LogitCache, batch_size: int, num_workers: int) -> Iterator[Tensor]:
    table, views = image_table(cache), views_of(cache)
    draws = views.draws(len(table))
    batches = read_ahead(
        table, views.image_input, range(len(table)), batch_size=batch_size, num_workers=num_workers,
        device=tuning.text.device,
    )  # fmt: skip
    for batch in batches:
        numbers = [view[batch["index"]] for view in draws]
        yield torch.stack([tuning.rows(images) for images in views.prepare(batch["image"], numbers)], dim=1)
