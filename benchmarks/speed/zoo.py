"""A zoo at rest: listing it, loading from it, exchanging what a running model aggregates."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import BENCHMARKS, Bench, Task
from benchmarks.models import backbone_for, modules_for
from benchmarks.results import Comparison, Figure
from vimlight.aggregation import aggregate
from vimlight.zoo import Zoo


@BENCHMARKS.register("zoo")
def zoo(
    bench: Bench, *, backbone: str, kind: str, settings: dict[str, Any], count: int, rounds: int, bars: dict[str, float]
) -> Iterator[Comparison | Figure]:
    """Times what happens before the first image.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kind: Type of the modules.
        settings: Their settings.
        count: Number of modules in the zoo.
        rounds: How often.
        bars: What is asked of `load_ms` and `list_s`.
    """
    model = backbone_for(bench, backbone)
    shelf = full_zoo(bench.scratch / "zoo", model, count, kind, settings)
    # Computed once for a backbone, whatever is loaded for it later.
    fingerprint, _ = bench.seconds(model.compute_fingerprint)
    yield bench.figure(f"fingerprint of {backbone}, once", 1000 * fingerprint, "ms")
    load = median(bench, lambda: shelf.load("module0", model), rounds)
    yield bench.figure(f"loading a {kind} module of {backbone}", 1000 * load, "ms", at_most=bars["load_ms"])
    listing = median(bench, lambda: [shelf.card(name) for name in shelf.names()], 3)
    yield bench.figure(f"listing {count:,} modules with their cards", listing, "s", at_most=bars["list_s"])
    modules = [shelf.load(f"module{index}", model) for index in range(min(count, 12))]
    swap = median(bench, lambda: aggregate(model, modules), rounds)
    yield bench.figure(f"aggregating {len(modules)} loaded modules anew", 1000 * swap, "ms")
    held = sum(p.numel() * p.element_size() for p in modules[0].parameters()) / 1e6
    whole = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    yield bench.figure("a module at rest", held, "MB")
    yield bench.figure("a fine-tuned copy at rest", whole, "MB")


def full_zoo(folder: Path, backbone: Any, count: int, kind: str, settings: dict[str, Any]) -> Zoo:
    """Fills a zoo with copies of one module: what is read is the same.

    Args:
        folder: Where.
        backbone: The backbone.
        count: How many.
        kind: Type of the modules.
        settings: Their settings.
    """
    shelf = Zoo(folder)
    shelf.add("module0", *modules_for(backbone, 1, kind, **settings))
    for index in range(1, count):
        shutil.copyfile(folder / "module0.safetensors", folder / f"module{index}.safetensors")
    return shelf


@torch.no_grad()
def median(bench: Bench, task: Task, rounds: int) -> float:
    """Returns the median seconds of a task after one call to warm up."""
    task()
    return statistics.median(bench.seconds(task)[0] for _ in range(rounds))
