"""A whole epoch over JPEG files beside the same steps on images in memory, and prediction beside the forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.models import backbone_for, images_for
from benchmarks.photographs import write_images
from benchmarks.results import Comparison, Figure
from benchmarks.speed.lightning import PlainStep
from vimlight.comparison.processes import quietly
from vimlight.data import MidstreamDataModule
from vimlight.report.curves import RunCurves
from vimlight.report.lines import ProgressLines
from vimlight.report.predictions import PredictionWriter
from vimlight.report.waiting import WaitMeter
from vimlight.training.midstream import MidstreamModule


@BENCHMARKS.register("throughput")
def throughput(
    bench: Bench,
    *,
    backbone: str,
    kind: str,
    files: int,
    width: int,
    height: int,
    batch: int,
    workers: int,
    rounds: int,
    bars: Mapping[str, float],
) -> Iterator[Comparison | Figure]:
    """Trains an epoch with all that `vimlight fit` hangs into it, and predicts, round by round beside the bare work.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kind: Type of the module.
        files: How many JPEG files an epoch has; whole batches of them.
        width: Their width in pixels.
        height: Their height.
        batch: Images of a step.
        workers: Processes that read files; 0 for a thread.
        rounds: How often.
        bars: What is asked of `fit` and `predict` by the bare work, and of the `wait` for data.
    """
    # A tenth of each class is lent to validation.
    folder = write_images(bench.scratch / "photographs", files * 10 // 9 + 4, (height, width), test=files)
    data = MidstreamDataModule("image_folder", {"root": str(folder)}, batch_size=batch, num_workers=workers)
    model = MidstreamModule(backbone_for(bench, backbone), kind, class_names=data.class_names).to(bench.device)
    held = {"image": images_for(model.backbone, batch), "target": torch.arange(batch, device=bench.device) % 2}
    steps = files // batch
    assert len(data.tables["train"]) >= files
    step, runs = PlainStep(model, held), Runs(bench, model, data, steps)
    fit = {"steps on images in memory": _times(steps, step), "fit over files": runs.fit}
    times = [{name: run() for name, run in _turned(fit, index).items()} for index in range(rounds)]
    title = f"{backbone}, {steps} steps of a {kind} module, batch {batch}, {width}x{height} JPEG"
    rows = bench.rows(times, next(iter(fit)), {"fit over files": bars["fit"]})
    yield Comparison(title, next(iter(fit)), rounds, rows)
    yield bench.figure("share of an epoch that the model waits for its data", runs.wait, at_most=bars["wait"])
    predict = {"forward passes": _times(steps, runs.forward(held["image"])), "predict over files": runs.predict}
    yield bench.compare(
        f"{backbone}, predictions for {steps} batches of {batch}",
        predict,
        rounds=rounds,
        at_most={"predict over files": bars["predict"]},
        count=False,
    )


class Runs:
    """Runs of a trainer as the command line builds it, in one process on one device.

    Args:
        bench: Where.
        model: What is trained.
        data: The files.
        steps: Batches of an epoch.

    Attributes:
        wait: Share of the last epoch for which the model waited.
    """

    def __init__(self, bench: Bench, model: MidstreamModule, data: MidstreamDataModule, steps: int) -> None:
        self.bench, self.model, self.data, self.steps = bench, model, data, steps
        self.wait = 0.0
        self._number = 0

    def fit(self) -> tuple[float, float]:
        """Trains an epoch; returns its seconds by the clock and by the processor, from its first batch on."""
        meter, clock = WaitMeter(advise_above=1), EpochClock()
        with quietly():
            self._trainer(meter, RunCurves(), clock).fit(self.model, datamodule=self.data)
        self.wait = meter.share
        return clock.seconds

    def predict(self) -> None:
        """Predicts the test images into a file."""
        self._number += 1
        writer = PredictionWriter(str(self.bench.scratch / f"predictions{self._number}.csv"))
        with quietly():
            self._trainer(writer).predict(self.model, datamodule=self.data, return_predictions=False)

    def forward(self, images: torch.Tensor) -> Callable[[], None]:
        """Returns a task: one forward pass of the model without a graph.

        Args:
            images: `(N, 3, H, W)`.
        """

        def task() -> None:
            with torch.inference_mode(), self.bench.precision():
                self.model.eval()(images)

        return task

    def _trainer(self, *callbacks: pl.Callback) -> pl.Trainer:
        cuda = self.bench.device.type == "cuda"
        return pl.Trainer(
            max_epochs=1,
            accelerator="gpu" if cuda else "cpu",
            devices=1,
            precision="bf16-mixed" if cuda else "32-true",
            callbacks=[*callbacks, ProgressLines()],
            logger=CSVLogger(self.bench.scratch / "runs"),
            limit_train_batches=self.steps,
            limit_predict_batches=self.steps,
            # Validation is no step; it is timed with predictions.
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_model_summary=False,
        )


class EpochClock(pl.Callback):
    """Times the training from its first batch to its last.

    Attributes:
        seconds: By the clock and by the processor, of all threads.
    """

    seconds = 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clocks."""
        self._start = time.perf_counter(), time.process_time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops them, once the device is done."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.seconds = time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def _times(count: int, task: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> tuple[float, float]:
        start = time.perf_counter(), time.process_time()
        for _ in range(count):
            task()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start[0], time.process_time() - start[1]

    return run


def _turned(tasks: Mapping[str, Any], index: int) -> dict[str, Any]:
    names = list(tasks) if index % 2 == 0 else list(tasks)[::-1]
    return {name: tasks[name] for name in names}
