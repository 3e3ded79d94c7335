"""A training step of the gates over a frozen zoo: K modules beside one, in time and in what the graph keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench import BENCHMARKS, Bench, Task
from benchmarks.models import backbone_for, images_for, modules_for
from benchmarks.results import Comparison
from vimlight.aggregation import Aggregate, aggregate


@BENCHMARKS.register("gates")
def gates(
    bench: Bench,
    *,
    backbone: str,
    kinds: Mapping[str, Mapping[str, Any]],
    counts: Sequence[int],
    batch: int,
    rounds: int,
    bars: Mapping[int, float],
) -> Iterator[Comparison]:
    """Compares steps with K modules with the step with one.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kinds: Settings of each type of module.
        counts: Values of K; the first is the reference.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked by K.
    """
    model = backbone_for(bench, backbone)
    images = images_for(model, batch)
    for kind, settings in kinds.items():
        tasks = {
            f"K = {count}": step(bench, aggregate(model, modules_for(model, count, kind, **settings)), images)
            for count in counts
        }
        at_most = {f"K = {count}": bar for count, bar in bars.items()}
        title = f"{backbone}, step of the gates over {kind} modules, batch {batch}"
        yield bench.compare(title, tasks, rounds=rounds, at_most=at_most)


def step(bench: Bench, model: Aggregate, images: Tensor) -> Task:
    """Returns a task: forward, loss, backward, optimiser.

    Args:
        bench: Where.
        model: An aggregate that is trained together with a linear head.
        images: `(N, 3, H, W)`.
    """
    head = nn.Linear(model.num_features(), 10).to(images.device)
    targets = torch.arange(len(images), device=images.device) % 10
    optimizer = torch.optim.AdamW([*model.gating.parameters(), *head.parameters()], lr=1e-3)

    def task() -> None:
        optimizer.zero_grad()
        with bench.precision():
            loss = F.cross_entropy(head(model(images)), targets)
        loss.backward()
        optimizer.step()

    return task
