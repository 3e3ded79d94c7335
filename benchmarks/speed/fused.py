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
    loops: Sequence[int],
    batch: int,
    rounds: int,
    bars: Mapping[str, Mapping[int, float]],
) -> Iterator[Comparison]:
    """Compares for each backbone, type of module and K.

    Args:
        bench: Where.
        backbones: Names of timm models.
        kinds: Of each type of module its `settings` and, as `counts`, the values of K.
        loops: Values of K at which the plain loop runs too.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of the fused form by type and K.
    """
    for name in backbones:
        backbone = backbone_for(bench, name)
        images = images_for(backbone, batch)
        for kind, what in kinds.items():
            for count in what["counts"]:
                modules = modules_for(backbone, count, kind, **what["settings"])
                model = aggregate(backbone, modules, "uniform").eval()
                tasks = {"bare": inference(bench, backbone, images), "fused": inference(bench, model, images)}
                yield bench.compare(
                    f"{name}, {count} x {kind}, batch {batch}",
                    tasks,
                    rounds=rounds,
                    at_most={"fused": bars.get(kind, {}).get(count)},
                    curve=f"{kind} on {name}",
                    x=count,
                    axis="modules",
                )
                if count in loops:
                    # By itself: what a loop leaves of the heap slows down whatever comes next.
                    plain = tasks | {"loop": inference(bench, partial(looped, backbone, modules), images)}
                    yield bench.compare(f"{count} x {kind} beside a loop over the modules", plain, rounds=2)


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
