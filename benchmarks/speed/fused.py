"""A forward pass of K gated modules in fused form, beside the bare backbone and a plain loop over the modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.models import backbone_for, images_for, modules_for
from benchmarks.results import Comparison
from vimlight.aggregation import aggregate
from vimlight.backbone import Backbone
from vimlight.plugins import Attachment, Plugin, Slot
from vimlight.plugins.base import LoopedUnits


@BENCHMARKS.register("fused")
def fused(
    bench: Bench,
    *,
    backbones: Sequence[str],
    kinds: Mapping[str, Mapping[str, Any]],
    counts: Sequence[int],
    loops: Sequence[int],
    batch: int,
    rounds: int,
    bars: Mapping[str, Mapping[int, float]],
) -> Iterator[Comparison]:
    """Compares for each backbone, type of module and K.

    Args:
        bench: Where.
        backbones: Names of timm models.
        kinds: Settings of each type of module.
        counts: Values of K.
        loops: Values of K at which the plain loop runs too.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of the fused form by type and K.
    """
    for name in backbones:
        backbone = backbone_for(bench, name)
        images = images_for(backbone, batch)
        for kind, settings in kinds.items():
            for count in counts:
                modules = modules_for(backbone, count, kind, **settings)
                model = aggregate(backbone, modules, "uniform").eval()
                tasks = {"bare": backbone, "fused": model}
                if count in loops:
                    tasks["loop"] = partial(looped, backbone, modules)
                yield bench.compare(
                    f"{name}, {count} x {kind}, batch {batch}",
                    {key: inference(bench, forward, images) for key, forward in tasks.items()},
                    rounds=rounds,
                    at_most={"fused": bars.get(kind, {}).get(count)},
                    rarely={"loop"},
                    curve=f"{kind} on {name}",
                    x=count,
                    axis="modules",
                )


def inference(bench: Bench, forward: Any, images: Tensor) -> Any:
    """Returns a task: one forward pass without a graph.

    Args:
        bench: Where.
        forward: From images to features.
        images: The images.
    """

    @torch.no_grad()
    def task() -> None:
        with bench.precision():
            forward(images)

    return task


def looped(backbone: Backbone, modules: Sequence[Plugin], images: Tensor) -> Tensor:
    """Runs each module by itself at each site and adds up: the arithmetic of the released ViM code."""
    kind = modules[0].unit_type
    gates = torch.full((len(modules),), 1 / len(modules), device=images.device)
    slots = [
        Slot(site, kind.reads, kind.writes, partial(LoopedUnits([m.unit(site) for m in modules]), gates=gates))
        for site in modules[0].sites
    ]
    with Attachment(backbone, slots):
        features: Tensor = backbone(images)
    return features
