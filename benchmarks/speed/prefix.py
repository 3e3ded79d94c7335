"""Training a module that sits in the last blocks, with the tokens before them kept, beside the same without a cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from benchmarks.bench import BENCHMARKS, Bench, Task
from benchmarks.models import backbone_for, images_for
from benchmarks.photographs import write_images
from benchmarks.results import Comparison
from vimlight.backbone import Backbone, Prefix
from vimlight.comparison.processes import quietly
from vimlight.data import MidstreamDataModule
from vimlight.training.midstream import MidstreamModule


@BENCHMARKS.register("prefix")
def prefix(
    bench: Bench,
    *,
    backbone: str,
    kinds: Mapping[str, Mapping[str, Any]],
    blocks: Sequence[int],
    images: int,
    pixels: int,
    batch: int,
    rounds: int,
    bars: Mapping[int, float],
) -> Iterator[Comparison]:
    """Compares steps, whose operations are the bound, and whole epochs with reading and validation.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kinds: Settings of each type of module.
        blocks: In how many of the last blocks the module sits.
        images: How many JPEG files, a quarter of them for validation.
        pixels: Their sides.
        batch: Images of a step.
        rounds: How often.
        bars: What is asked of an epoch's time by that without a cache, by the number of blocks.
    """
    model = backbone_for(bench, backbone)
    folder = write_images(bench.scratch / "photographs", images, (pixels, pixels))
    for kind, settings in kinds.items():
        for count in blocks:
            plugin = {"kind": kind, "blocks": f"last:{count}", **settings}
            title = f"{backbone}, {kind} in the last {count} of {len(model.blocks)} blocks, batch {batch}"
            yield bench.compare(f"step, {title}", steps(bench, model, plugin, count, batch), rounds=rounds)
            data = MidstreamDataModule("image_folder", {"root": str(folder)}, batch_size=batch, val_fraction=0.25)
            cache = {"dir": str(bench.scratch / "prefixes")}
            without = Epochs(bench, model, plugin, data, None)
            kept = Epochs(bench, model, plugin, data, cache)
            kept.run()
            found = [{"images": without.run(), "tokens kept": kept.run()} for _ in range(rounds)]
            rows = bench.rows(found, "images", {"tokens kept": bars.get(count)})
            yield Comparison(f"epoch of {images} JPEG files, {title}", "images", rounds, rows)


def steps(bench: Bench, backbone: Backbone, plugin: Mapping[str, Any], count: int, batch: int) -> dict[str, Task]:
    """Returns tasks that take a training step from images, and from tokens in memory."""
    images = images_for(backbone, batch)
    tokens = backbone.prefix(images, len(backbone.blocks) - count)
    module = MidstreamModule(backbone, dict(plugin), class_names="abcd").to(bench.device).train()
    targets = torch.arange(batch, device=bench.device) % 4
    optimizer = torch.optim.AdamW(module.trainable_parameters(), lr=1e-3)

    def task(given: Tensor | Prefix) -> Task:
        def step() -> None:
            with bench.precision():
                loss = module.task.loss(module(given), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    return {"images": task(images), "tokens": task(tokens)}


class Epochs(pl.Callback):
    """Trains for an epoch, validation included, and times it.

    Args:
        bench: Where.
        backbone: The backbone.
        plugin: Arguments of the plug-in.
        data: The data.
        cache: Arguments of the prefix cache, if there is one.
    """

    def __init__(
        self,
        bench: Bench,
        backbone: Backbone,
        plugin: Mapping[str, Any],
        data: MidstreamDataModule,
        cache: dict[str, Any] | None,
    ) -> None:
        self._bench, self._data = bench, data
        self._make = lambda: MidstreamModule(
            backbone, dict(plugin), kind=data.kind, class_names=data.class_names, prefix_cache=cache
        )
        self._start = self._end = (0.0, 0.0)

    def run(self) -> tuple[float, float]:
        """Trains a new module for an epoch; returns the seconds by the clock and by the processor."""
        cuda = self._bench.device.type == "cuda"
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="gpu" if cuda else "cpu",
            devices=1,
            precision="bf16-mixed" if cuda else "32-true",
            callbacks=[self],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=self._bench.scratch,
        )
        with quietly():
            trainer.fit(self._make(), datamodule=self._data)
        return self._end[0] - self._start[0], self._end[1] - self._start[1]

    def on_train_epoch_start(self, *_: Any) -> None:
        """Starts the clock."""
        self._start = self._now()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stops the clock, behind the validation."""
        self._end = self._now()

    def _now(self) -> tuple[float, float]:
        if self._bench.device.type == "cuda":
            torch.cuda.synchronize(self._bench.device)
        return time.perf_counter(), time.process_time()
