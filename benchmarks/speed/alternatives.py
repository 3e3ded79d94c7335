"""K LoRA modules on one backbone: fused here, by peft, and as K fine-tuned copies."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import timm
from torch import Tensor, nn

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.models import images_for, modules_for
from benchmarks.results import Comparison, Figure
from benchmarks.speed.fused import inference
from vimlight.aggregation import aggregate
from vimlight.backbone import create_backbone
from vimlight.errors import ConfigError

_LAYERS = ["qkv", "fc1", "fc2"]


@BENCHMARKS.register("alternatives")
def alternatives(
    bench: Bench, *, backbone: str, count: int, rank: int, batch: int, rounds: int, bars: dict[str, float]
) -> Iterator[Comparison | Figure]:
    """Compares K LoRA modules that act at once with what else there is.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        count: K.
        rank: Rank of every change, of the layers `qkv`, `fc1` and `fc2`.
        batch: Images at a time.
        rounds: How often.
        bars: By how much the fused form has to be faster than peft's K `active` at once and K in `sequence`.
    """
    own = create_backbone(backbone).to(bench.device)
    images = images_for(own, batch)
    modules = modules_for(own, count, "lora", rank=rank, places=_LAYERS)
    peft = PeftZoo(timm.create_model(backbone, num_classes=0).eval().to(bench.device), count, rank)
    copies = [copy.deepcopy(own.model) for _ in range(count)]
    tasks = {
        "timm alone": own,
        "vimlight, K fused": aggregate(own, modules, "uniform").eval(),
        "vimlight, one": aggregate(own, modules[:1], "uniform").eval(),
        "peft, one": peft.one,
        "peft, K active": peft.active,
        "peft, mixed batch": peft.mixed,
        "peft, K in sequence": peft.sequence,
        "K fine-tuned copies": lambda batch: [model(batch) for model in copies],
    }
    rarely = {"peft, K in sequence", "K fine-tuned copies"}
    runs = {name: inference(bench, forward, images) for name, forward in tasks.items()}
    found = bench.compare(
        f"{backbone}, {count} LoRA modules of rank {rank}, batch {batch}", runs, rounds=rounds, rarely=rarely
    )
    yield found
    fused = found.row("vimlight, K fused").ratio
    for what, bar in {"K active": "active", "K in sequence": "sequence"}.items():
        times = found.row(f"peft, {what}").ratio / fused
        yield bench.figure(f"faster than peft, {what}, by", times, "x", at_least=bars[bar])


class PeftZoo:
    """K adapters of peft on one model.

    Args:
        model: The timm model.
        count: K.
        rank: Rank of every change.

    Raises:
        ConfigError: If peft is not installed.
    """

    def __init__(self, model: nn.Module, count: int, rank: int) -> None:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ConfigError("the alternatives need peft: pip install peft") from error
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_LAYERS, init_lora_weights=False)
        self.names = [f"module{index}" for index in range(count)]
        self.model: Any = get_peft_model(model, config, adapter_name=self.names[0]).eval()
        for name in self.names[1:]:
            self.model.add_adapter(name, config)
        self.model.to(next(model.parameters()).device).eval()

    def one(self, images: Tensor) -> Tensor:
        """Runs with the first adapter."""
        return self._with(self.names[:1], images)

    def active(self, images: Tensor) -> Tensor:
        """Runs once with all of them adding up."""
        return self._with(self.names, images)

    def sequence(self, images: Tensor) -> list[Tensor]:
        """Runs once with each."""
        return [self._with([name], images) for name in self.names]

    def mixed(self, images: Tensor) -> Tensor:
        """Runs once, every image with an adapter of its own."""
        self.model.base_model.set_adapter(self.names[0])
        output: Tensor = self.model(images, adapter_names=[self.names[i % len(self.names)] for i in range(len(images))])
        return output

    def _with(self, names: Sequence[str], images: Tensor) -> Tensor:
        self.model.base_model.set_adapter(list(names))
        output: Tensor = self.model(images)
        return output
