"""A step of midstream training: what its forward pass keeps for the backward pass, and its time, beside peft's LoRA."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench import BENCHMARKS, Bench, Task
from benchmarks.memory import kept_by_graph
from benchmarks.models import backbone_for, images_for
from benchmarks.results import Comparison, Figure
from benchmarks.speed.alternatives import PeftZoo
from benchmarks.speed.fused import inference
from vimlight.backbone import Backbone
from vimlight.plugins import Plugin, attach, create_plugin

_MODES = ("light", "lean")
_CLASSES = 10


@BENCHMARKS.register("memory")
def memory(
    bench: Bench,
    *,
    backbones: Sequence[str],
    plugins: Sequence[Mapping[str, Any]],
    rank: int,
    batch: int,
    rounds: int,
    bars: Mapping[str, Mapping[str, float]],
) -> Iterator[Comparison | Figure]:
    """Compares steps for each backbone and plug-in with the step of peft's LoRA on `qkv`, `fc1` and `fc2`.

    Args:
        bench: Where.
        backbones: Names of timm models, vision transformers.
        plugins: Arguments of `create_plugin`, the type as `kind`.
        rank: Rank of peft's LoRA.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of each mode's `kept` memory and `time`, by peft's.
    """
    for name in backbones:
        backbone = backbone_for(bench, name)
        images = images_for(backbone, batch)
        peft = PeftZoo(timm.create_model(name, num_classes=0).eval().to(bench.device), 1, rank).model
        for settings in plugins:
            plugin = create_plugin(backbone=backbone, **settings)
            steps = {"peft LoRA": _Step(bench, peft, images, backbone.num_features())}
            for mode in ("plain", *_MODES):
                steps[mode] = _Step(bench, _attached(backbone, plugin, mode), images, backbone.num_features(), plugin)
            title = ", ".join(f"{key} {value}" for key, value in settings.items())
            yield from _compared(bench, f"{name}, {title}, batch {batch}", backbone, images, steps, rounds, bars)


def _compared(
    bench: Bench,
    title: str,
    backbone: Backbone,
    images: Tensor,
    steps: Mapping[str, _Step],
    rounds: int,
    bars: Mapping[str, Mapping[str, float]],
) -> Iterator[Comparison | Figure]:
    tasks: dict[str, Task] = {"bare forward": inference(bench, backbone, images), **steps}
    at_most = {mode: bars[mode]["time"] for mode in _MODES}
    found = bench.compare(title, tasks, rounds=rounds, reference="peft LoRA", at_most=at_most)
    kept = {name: kept_by_graph(step.loss) for name, step in steps.items()}
    rows = (dataclasses.replace(row, kept_mb=kept.get(row.name, 0) / 1e6) for row in found.rows)
    yield dataclasses.replace(found, rows=tuple(rows))
    bare = found.row("bare forward").ratio
    for mode in steps:
        yield bench.figure(f"{mode}, step by bare forward passes", found.row(mode).ratio / bare, "x")
    bounds = _bounds(bench, backbone, images)
    for mode in _MODES:
        share = kept[mode] / kept["peft LoRA"]
        text = f"{mode}, kept by peft's (bound {bounds[mode] / kept['peft LoRA']:.2f})"
        yield bench.figure(text, share, at_most=bars[mode]["kept"])


class _Step:
    """Forward, loss, backward, optimiser.

    Args:
        bench: Where.
        forward: From images to features.
        images: The images.
        width: Width of the features.
        trained: What is trained beside a linear head; what requires gradients of `forward` if left out.
    """

    def __init__(
        self, bench: Bench, forward: Callable[..., Any], images: Tensor, width: int, trained: nn.Module | None = None
    ) -> None:
        self.bench, self.forward, self.images = bench, forward, images
        self.head = nn.Linear(width, _CLASSES).to(images.device)
        self.targets = torch.arange(len(images), device=images.device) % _CLASSES
        module = trained or forward
        assert isinstance(module, nn.Module)
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW([*learned, *self.head.parameters()], lr=1e-4)

    def loss(self) -> Tensor:
        """Runs the forward pass alone."""
        with self.bench.precision():
            return F.cross_entropy(self.head(self.forward(self.images)), self.targets)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


def _attached(backbone: Backbone, plugin: Plugin, mode: str) -> Callable[[Tensor], Any]:
    def forward(images: Tensor) -> Any:
        with attach(backbone, plugin), backbone.recomputing(mode):
            return backbone(images)

    return forward


def _bounds(bench: Bench, backbone: Backbone, images: Tensor) -> dict[str, float]:
    """Returns the bytes of what cannot be done without, of the tokens of all blocks.

    That is the block's input and attention's output; with it queries, keys and values where they are not made again.
    """
    sizes: list[int] = []
    sites = [backbone.model.get_submodule(site.output_module) for site in backbone.blocks]
    handles = [site.register_forward_hook(lambda _, args, output: sizes.append(output.nbytes)) for site in sites]
    short = 2 if bench.device.type == "cuda" else 4
    inference(bench, partial(backbone), images)()
    for handle in handles:
        handle.remove()
    stream = sum(sizes)
    return {"light": stream * (1 + 4 * short / 4), "lean": stream * (1 + short / 4)}
