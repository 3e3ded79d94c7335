"""Choosing a method's settings on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vimlight.transmiter.judging.methods.base import Fit, Method
from vimlight.transmiter.judging.pooling import log_loss

__all__ = ["choose"]


def choose(
    method: Method, data: Fit, candidates: Sequence[Mapping[str, float]], default: Mapping[str, float]
) -> dict[str, Any]:
    """Gives a method the settings with the smallest log-loss on validation images.

    The loss is taken at the best temperature of each candidate: settings that only make logits larger gain nothing. It
    is that of the classes with labels among themselves; see `Fit.validation`.

    Args:
        method: The method; the settings are its attributes.
        data: What it may look at.
        candidates: The settings to try.
        default: What it gets where nothing can be chosen.

    Returns:
        How the settings came about, as plain values.
    """
    found = data.validation(method.reads)
    best = default
    if found is not None:
        images = found.images(method.reads, found.classes)
        labels = torch.searchsorted(torch.as_tensor(found.classes), found.labels.cpu())
        losses = []
        for settings in candidates:
            vars(method).update(settings)
            losses.append(log_loss(method(images)[:, list(found.classes)].cpu(), labels))
        best = candidates[min(range(len(losses)), key=losses.__getitem__)]
    vars(method).update(best)
    if found is None:
        return {"chosen": "no: no validation labels"}
    return {"chosen": f"log-loss on {len(found.labels)} validation images"}
