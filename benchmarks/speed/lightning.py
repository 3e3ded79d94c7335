"""A training step under Lightning, with all that vimlight hangs into it, beside the same step in a plain loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.models import backbone_for, images_for
from benchmarks.results import Comparison
from vimlight.comparison.processes import quietly
from vimlight.training.midstream import MidstreamModule

_CLASSES = tuple("abcdefghij")


@BENCHMARKS.register("lightning")
def lightning(
    bench: Bench, *, backbone: str, kind: str, batch: int, steps: int, bars: Mapping[str, float]
) -> Iterator[Comparison]:
    """Trains a module step by step, each step once under Lightning and once without.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kind: Type of the module.
        batch: Images of a step.
        steps: How many steps.
        bars: What is asked of the `ratio`.
    """
    model = backbone_for(bench, backbone)
    data = {"image": images_for(model, batch), "target": torch.arange(batch, device=bench.device) % len(_CLASSES)}
    watched, plain = (MidstreamModule(model, kind, class_names=_CLASSES).to(bench.device) for _ in range(2))
    alternation = Alternation(PlainStep(plain, data), bench.device)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="gpu" if bench.device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if bench.device.type == "cuda" else "32-true",
        callbacks=[alternation],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=bench.scratch,
    )
    with quietly():
        trainer.fit(watched, DataLoader([data] * (steps + 1), batch_size=None))
    # The first rounds warm up.
    rows = bench.rows(alternation.rounds[2:], "plain loop", {"Lightning": bars["ratio"]})
    yield Comparison(f"{backbone}, step of a {kind} module, batch {batch}", "plain loop", steps - 2, rows)


class PlainStep:
    """A step without Lightning.

    Args:
        module: What is trained.
        data: The batch.
    """

    def __init__(self, module: MidstreamModule, data: Mapping[str, Tensor]) -> None:
        self.module, self.data = module.train(), data
        self.optimizer = torch.optim.AdamW(module.trainable_parameters(), lr=1e-3)

    def __call__(self) -> None:
        """Takes one step."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.data["image"].is_cuda):
            loss = self.module.task.loss(self.module(self.data["image"]), self.data["target"])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Alternation(pl.Callback):
    """Takes a plain step between two of Lightning's, and times both.

    What is counted as Lightning's is everything between two plain steps: loading, step, hooks, logging.

    Args:
        plain: The plain step.
        device: Where it runs.
    """

    def __init__(self, plain: PlainStep, device: torch.device) -> None:
        self.plain, self.device = plain, device
        self.rounds: list[dict[str, tuple[float, float]]] = []
        self._end: tuple[float, float] | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Ends the round of Lightning's last step."""
        start = self._now()
        with torch.enable_grad():
            self.plain()
        end = self._now()
        if self._end is not None:
            self.rounds.append({"plain loop": _less(end, start), "Lightning": _less(start, self._end)})
        self._end = end

    def _now(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter(), time.process_time()


def _less(late: tuple[float, float], early: tuple[float, float]) -> tuple[float, float]:
    return late[0] - early[0], late[1] - early[1]
