"""A new kind of task is one new file: with its own layout of targets, from the command line, through every stage."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tiny_training import VIT

from vimlight.cli import main
from vimlight.data import SOURCES
from vimlight.tasks import TASKS
from vimlight.zoo import Zoo

FILE = '''
import torch
from torchmetrics import MeanSquaredError, MetricCollection

from vimlight.data import SOURCES, Source, TensorTable
from vimlight.tasks import TASKS, TargetLayout, Task


class Points(TargetLayout):
    """One place in each image, `(2,)`: x and y from -1 to 1."""

    name = "points"
    spatial = True

    def fit(self, targets, frame):
        # All of the image is kept, so shares of it stay what they are.
        return targets

    def warp(self, targets, matrices, size):
        matrix, shift = matrices[:, :, :2].to(targets), matrices[:, :, 2].to(targets)
        return torch.linalg.solve(matrix, targets - shift).contiguous()


@TASKS.register("point")
class Point(Task):
    """Where the bright spot is."""

    kind = "point"
    monitor = "mse"
    mode = "min"
    layout = Points()
    fewest_classes = 0

    def __init__(self, class_names=(), *, power: float = 2.0):
        super().__init__(class_names)
        self.power = power

    @property
    def num_outputs(self):
        return 2

    def loss(self, outputs, targets):
        return (outputs - targets).abs().pow(self.power).mean()

    def predictions(self, outputs, size=(0, 0)):
        return outputs.float()

    def columns(self, targets):
        return targets

    def metrics(self):
        return MetricCollection({"mse": MeanSquaredError()})

    def table(self, predictions):
        return {"x": predictions[:, 0].tolist(), "y": predictions[:, 1].tolist()}


@SOURCES.register("spots")
def spots(count: int = 60, wide: bool = False) -> Source:
    """Draws a bright spot each."""
    generator = torch.Generator().manual_seed(0)
    height, width = 32, 48 if wide else 32
    places = torch.rand(count, 2, generator=generator) * 1.4 - 0.7
    rows = torch.linspace(-1, 1, height)[None, :, None] - places[:, 1, None, None]
    columns = torch.linspace(-1, 1, width)[None, None, :] - places[:, 0, None, None]
    images = (255 * torch.exp(-12 * (rows**2 + columns**2))).to(torch.uint8)[:, None]
    return Source("spots", "point", (), TensorTable(images, places, "spots"))
'''


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_points.py").write_text(FILE)
    yield tmp_path
    TASKS._entries.pop("point", None)
    SOURCES._entries.pop("spots", None)


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def run(*words):
    backbone = json.dumps({"name": "vit_tiny_patch16_224", **VIT})
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    main(["--import", "my_points", *words, f"--model.backbone={backbone}", *quiet])


@pytest.mark.slow
def test_a_kind_with_a_layout_of_its_own(workplace):
    train = ["--model=MidstreamModule", "--data=MidstreamDataModule", "--data.dataset=spots", "--data.augment=light"]
    train += ["--model.optimizer=AdamW", "--model.optimizer.lr=0.02", "--data.batch_size=10"]
    run("fit", *train, "--model.name=points", "--model.task={kind: point, power: 1.5}", "--trainer.max_epochs=3")
    assert Zoo("zoo").card("points").task == "point"
    spots = ["--data=DownstreamDataModule", "--data.dataset=spots", "--data.shots=20", "--data.val_shots=5"]
    adapt = ["--model=DownstreamModule", *spots, "--data.dataset_args.wide=true", "--trainer.max_epochs=2"]
    run("fit", *adapt)
    checkpoint = str(next(Path("runs/fit/version_1/checkpoints").glob("*.ckpt")))
    run("test", *adapt, "--ckpt_path", checkpoint)
    run("predict", *adapt, "--ckpt_path", checkpoint, "--predictions.path=out.csv")
    rows = rows_of("out.csv")
    assert list(rows[0]) == ["id", "x", "y"]
    metrics = [row for row in rows_of("runs/test/version_0/metrics.csv") if row.get("test/mse")]
    assert float(metrics[0]["test/mse"]) < 0.12, "the spread of the places alone is 0.16"


def test_its_targets_follow_their_images(workplace, monkeypatch):
    import importlib
    import sys

    import torch

    from vimlight.data.transforms import AUGMENTATIONS, Augmentation

    monkeypatch.syspath_prepend(str(workplace))
    sys.modules.pop("my_points", None)
    importlib.import_module("my_points")
    source = SOURCES["spots"](8)
    images = source.train.images(range(8)).float() / 255
    draws = torch.rand(8, Augmentation.DRAWS)
    change = AUGMENTATIONS["light"]
    warped = change(images, draws)[:, 0]
    places = TASKS["point"].layout.warp(source.train.targets, change.matrices(draws), (32, 32))
    brightest = warped.flatten(1).argmax(dim=1)
    found = torch.stack([brightest % 32, brightest // 32], dim=1) / 31 * 2 - 1
    torch.testing.assert_close(found, places, atol=0.12, rtol=0)
    sys.modules.pop("my_points", None)
