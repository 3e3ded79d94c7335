"""Modules folded into the backbone's own weights: they cost nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.models import backbone_for, images_for, modules_for
from benchmarks.results import Comparison
from benchmarks.speed.fused import inference
from vimlight.plugins.merging import merge


@BENCHMARKS.register("merged")
def merged(
    bench: Bench,
    *,
    backbone: str,
    kinds: Mapping[str, Mapping[str, Any]],
    batch: int,
    rounds: int,
    bars: Mapping[str, float],
) -> Iterator[Comparison]:
    """Compares a copy of the backbone with one module merged with the bare one.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kinds: Settings of each type of module.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of the `ratio`.
    """
    bare = backbone_for(bench, backbone)
    images = images_for(bare, batch)
    models = {"bare": bare}
    for kind, settings in kinds.items():
        models[kind] = copy.deepcopy(bare)
        merge(models[kind], *modules_for(bare, 1, kind, **settings))
    tasks = {name: inference(bench, model, images) for name, model in models.items()}
    title = f"{backbone}, one module merged, batch {batch}"
    yield bench.compare(title, tasks, rounds=rounds, at_most=dict.fromkeys(kinds, bars["ratio"]))
