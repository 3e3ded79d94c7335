"""Images through a model, with reading ahead and results brought to the host behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vimlight.data import Table
from vimlight.transmiter.cache.images import ImageViews, read_ahead
from vimlight.transmiter.models.image_text import ImageTextModel

__all__ = ["encode_images"]


def encode_images(
    model: ImageTextModel,
    table: Table,
    views: ImageViews,
    rows: Sequence[int],
    *,
    batch_size: int,
    num_workers: int = 0,
) -> Iterator[Tensor]:
    """Encodes images; the next ones are read, and the last ones brought to the host, while the device computes.

    Args:
        model: The model.
        table: The images.
        views: How each is shown.
        rows: Which images, in order.
        batch_size: Images at a time.
        num_workers: Processes that read images.

    Yields:
        `(n, V, E)` float32 on the CPU, batch by batch.
    """
    draws = views.draws(len(table))
    waiting: tuple[Tensor, Any] | None = None
    batches = read_ahead(
        table, views.image_input, rows, batch_size=batch_size, num_workers=num_workers, device=model.device
    )
    for batch in batches:
        numbers = [view[batch["index"]] for view in draws]
        encoded = [model.encode_image(images) for images in views.prepare(batch["image"], numbers)]
        started = _to_host(torch.stack(encoded, dim=1))
        if waiting is not None:
            yield _arrived(waiting)
        waiting = started
    if waiting is not None:
        yield _arrived(waiting)


def _to_host(features: Tensor) -> tuple[Tensor, Any]:
    if features.device.type != "cuda":
        return features, None
    copy = features.to("cpu", non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event


def _arrived(copy: tuple[Tensor, Any]) -> Tensor:
    if copy[1] is not None:
        copy[1].synchronize()
    return copy[0]
