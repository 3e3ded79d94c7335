"""A batch whose images belong to different tasks, each with gates and a head of its own, beside a batch of one task."""

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
from vimlight.deployment.multitask import MultiTask
from vimlight.tasks import AffineHead

_CLASSES = 10


@BENCHMARKS.register("mixed")
def mixed(
    bench: Bench,
    *,
    backbone: str,
    kind: str,
    settings: Mapping[str, Any],
    modules: int,
    tasks: int,
    batch: int,
    rounds: int,
    bars: Mapping[str, float],
) -> Iterator[Comparison]:
    """Compares the forward pass and the training step of gates and heads.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kind: Type of the modules.
        settings: Their settings.
        modules: How many there are in the zoo.
        tasks: How many tasks there are in a batch.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of the `ratio`.
    """
    model = backbone_for(bench, backbone)
    images = images_for(model, batch)
    zoo = modules_for(model, modules, kind, **settings)
    pairs = {f"task {number}": with_head(aggregate(model, zoo)) for number in range(tasks)}
    joined = MultiTask(pairs)
    names = [f"task {number * tasks // batch}" for number in range(batch)]
    for training in (False, True):
        compared = {
            "one task": run(bench, training, pairs, lambda: [alone(pairs, "task 0", images)]),
            f"{tasks} tasks": run(bench, training, pairs, lambda: outputs_of(joined, images, names)),
            f"{tasks} tasks in turn": run(bench, training, pairs, lambda: in_turn(pairs, images, names)),
        }
        what = "training step" if training else "forward pass"
        yield bench.compare(
            f"{backbone}, {what} over {modules} {kind} modules, batch {batch}",
            compared,
            rounds=rounds,
            at_most={f"{tasks} tasks": bars.get("ratio")},
        )


Pairs = Mapping[str, tuple[Aggregate, nn.Module]]


def with_head(model: Aggregate) -> tuple[Aggregate, nn.Module]:
    """Returns an aggregate with a head for it."""
    head = AffineHead(model.num_features(), _CLASSES)
    return model, head.to(next(model.backbone.parameters()).device)


def alone(pairs: Pairs, name: str, images: Tensor) -> Tensor:
    """Returns the logits of one task."""
    model, head = pairs[name]
    logits: Tensor = head(model(images))
    return logits


def outputs_of(model: MultiTask, images: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Returns the logits of each task of a mixed batch, in one pass."""
    return [share.outputs for share in model.by_task(images, names).values()]


def in_turn(pairs: Pairs, images: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Returns the logits of each task of a mixed batch, in a pass for each."""
    return [alone(pairs, name, images[[other == name for other in names]]) for name in dict.fromkeys(names)]


def run(bench: Bench, training: bool, pairs: Pairs, outputs: Any) -> Task:
    """Returns a task: a forward pass, or a whole step.

    Args:
        bench: Where.
        training: Whether gates and heads learn.
        pairs: What learns.
        outputs: Returns logits, task by task.
    """
    learned = [p for model, head in pairs.values() for p in [*model.gating.parameters(), *head.parameters()]]
    optimizer = torch.optim.AdamW(learned, lr=1e-3)
    targets = torch.arange(1000, device=bench.device) % _CLASSES

    def forward() -> None:
        with torch.no_grad(), bench.precision():
            outputs()

    def step() -> None:
        with bench.precision():
            losses = [F.cross_entropy(logits, targets[: len(logits)]) for logits in outputs()]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()

    return step if training else forward
