"""One image that several tasks answer in one batch, beside the pass of one task, as `vimlight serve` does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from benchmarks.bench import BENCHMARKS, Bench, Task
from benchmarks.models import backbone_for, images_for, modules_for
from benchmarks.results import Comparison
from benchmarks.speed.mixed import Pairs, alone, with_head
from vimlight.aggregation import aggregate
from vimlight.backbone import Backbone
from vimlight.deployment.multitask import MultiTask
from vimlight.plugins import Plugin


@BENCHMARKS.register("together")
def together(
    bench: Bench,
    *,
    backbone: str,
    kind: str,
    settings: Mapping[str, Any],
    modules: int,
    tasks: int,
    blocks: Sequence[int],
    rounds: int,
    bars: Mapping[str, float],
) -> Iterator[Comparison]:
    """Compares forward passes of one image.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kind: Type of the modules.
        settings: Their settings.
        modules: How many there are in the zoo.
        tasks: How many tasks there are.
        blocks: In how many of the last blocks the modules sit.
        rounds: How often.
        bars: What is asked of the `equal` gates.
    """
    model = backbone_for(bench, backbone)
    for count in blocks:
        zoo = modules_for(model, modules, kind, blocks=f"last:{count}", **settings)
        yield bench.compare(
            f"{backbone}, one image, {modules} {kind} modules in the last {count} of {len(model.blocks)} blocks",
            _compared(bench, model, zoo, tasks),
            rounds=rounds,
            at_most={f"{tasks} tasks, equal gates": bars.get("equal")},
        )


def _compared(bench: Bench, model: Backbone, zoo: Sequence[Plugin], tasks: int) -> dict[str, Task]:
    image = images_for(model, 1)
    own = {f"task {number}": with_head(aggregate(model, zoo)) for number in range(tasks)}
    generator = torch.Generator().manual_seed(0)
    for aggregator, _ in own.values():
        aggregator.start_from(torch.randn(len(zoo), generator=generator).to(image.device))
    equal = {name: with_head(aggregate(model, zoo, "uniform")) for name in own}

    def at_once(pairs: Pairs) -> Task:
        joined = MultiTask(pairs)
        # The way from block to block is found once.
        joined.together(image)

        def run() -> None:
            with bench.precision():
                joined.together(image)

        return run

    def in_turn(names: Sequence[str]) -> Task:
        def run() -> None:
            with torch.no_grad(), bench.precision():
                for name in names:
                    alone(own, name, image)

        return run

    return {
        "one task": in_turn(["task 0"]),
        f"{tasks} tasks, equal gates": at_once(equal),
        f"{tasks} tasks, own gates": at_once(own),
        f"{tasks} tasks in turn": in_turn(list(own)),
    }
