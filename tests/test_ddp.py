"""Two processes train the module that one process trains with the same global batch, and score as one does."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from processes import run_in
from tiny_kinds import SETTINGS, scene_for
from tiny_training import digits, downstream, midstream, scenes, tiny_backbone, trainer
from torch.optim import SGD

from vimlight.report.callbacks import RunReport
from vimlight.report.predictions import PredictionWriter
from vimlight.tasks import TASKS, Task, list_tasks

STAGES = ("midstream", "masks", "downstream", "detection")
MASKS = {"kind": "segmentation", "head": "linear"}
BOXES = {"kind": "detection", "width": 32, "levels": 2, "convs": 1, "score_threshold": 0.0}


def prepare(stage, zoo, devices):
    backbone, batch_size = tiny_backbone(), 8 // devices
    if stage == "downstream":
        data = digits(shots=4, batch_size=batch_size)
        extra = {"aggregator": "none", "head": "linear", "extra_module": "lora"}
        return data, downstream(backbone, data, zoo, optimizer=partial(SGD, lr=0.001), **extra)
    # Of an odd number of test images one is seen twice.
    data = {
        "midstream": lambda: scenes(train=40, batch_size=batch_size),
        "masks": lambda: scenes("segments", train=40, batch_size=batch_size),
        "detection": lambda: scenes("objects", train=40, batch_size=batch_size, test_limit=13),
    }[stage]()
    task = {"masks": {"task": MASKS}, "detection": {"task": BOXES}}.get(stage, {})
    return data, midstream(backbone, data, zoo, name="module", optimizer=partial(SGD, lr=0.002), **task)


def scores(kind, devices, root):
    # Of 13 images in batches of 5, one of two processes gets two batches; of 3, the other gets none.
    own = {"batch_size": 5, "val_fraction": 13 / 40, "test_limit": 3}
    data = scenes(scene_for(kind), train=40, **own)
    place = root / "scores" / kind
    model = midstream(tiny_backbone(), data, str(place), task=SETTINGS[kind])
    writer, logger = PredictionWriter(str(place / "out.json")), CSVLogger(str(place))
    judge = trainer(str(place), strategy="ddp", devices=devices, callbacks=[writer, RunReport(2)], logger=logger)
    found = {**judge.validate(model, datamodule=data, verbose=False)[0]}
    found |= judge.test(model, datamodule=data, verbose=False)[0]
    judge.predict(model, datamodule=data, return_predictions=False)
    return judge.global_rank, found


def score_and_train(devices, root):
    torch.set_num_threads(1)
    parts = {kind: scores(kind, devices, root) for kind in list_tasks()}
    rank = next(rank for rank, _ in parts.values())
    torch.save({kind: found for kind, (_, found) in parts.items()}, root / f"scores{rank}.pt")
    for stage in STAGES:
        place = root / stage
        place.mkdir(exist_ok=True)
        data, model = prepare(stage, str(place / "zoo"), devices)
        # Whole global batches alone: what is left over is shared out by repeating images.
        options = {"strategy": "ddp", "limit_train_batches": 4, "devices": devices}
        fit = trainer(str(place), epochs=2, callbacks=[PredictionWriter(str(place / "out.json"))], **options)
        fit.fit(model, datamodule=data)
        metric = fit.callback_metrics[f"val/{model.task.monitor}"]
        tested = {}
        if stage == "detection":
            tested = fit.test(model, datamodule=data, verbose=False)[0]
            fit.predict(model, datamodule=data, return_predictions=False)
        if fit.is_global_zero:
            torch.save({"state": model.state_dict(), "metric": metric, "tested": tested}, place / "result.pt")


def train(devices, root):
    root.mkdir()
    run_in(devices, partial(score_and_train, devices, root), root)
    return {stage: torch.load(root / stage / "result.pt", weights_only=True) for stage in STAGES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of one process and of two, and what they trained."""
    folder = tmp_path_factory.mktemp("ddp")
    return folder, [train(1, folder / "one"), train(2, folder / "two")]


@pytest.mark.slow
def test_two_processes_score_every_image_once(runs):
    one, two, other = (torch.load(runs[0] / file) for file in ("one/scores0.pt", "two/scores0.pt", "two/scores1.pt"))
    assert list(one) == list_tasks()
    for kind, expected in one.items():
        assert {"val/loss", "test/loss"} <= set(expected)
        assert two[kind] == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True), kind
        # Checkpoints are chosen by what each process knows.
        assert other[kind] == pytest.approx(two[kind], nan_ok=True), kind
        tables = [runs[0] / run / "scores" / kind / "out.json" for run in ("one", "two")]
        assert tables[0].read_text() == tables[1].read_text()
        curves = [sorted((runs[0] / run / "scores" / kind).rglob("*_precision_recall.csv")) for run in ("one", "two")]
        assert len(curves[0]) == (2 if TASKS[kind].precision_recall is not Task.precision_recall else 0)
        for alone, together in zip(*curves, strict=True):
            assert (together.name, together.read_text()) == (alone.name, alone.read_text())


@pytest.mark.slow
def test_two_processes_train_the_same_modules(runs):
    tmp_path, runs = runs
    for stage in STAGES:
        one, two = (run[stage] for run in runs)
        assert one["state"].keys() == two["state"].keys()
        for name, value in one["state"].items():
            torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-6, msg=f"{stage}: {name}")
        torch.testing.assert_close(two["metric"], one["metric"], rtol=1e-3, atol=1e-4)
        if stage != "downstream":
            files = [{path.name for path in (tmp_path / run / stage / "zoo").iterdir()} for run in ("one", "two")]
            assert files[0] == files[1] == {"module.safetensors"}
    scores = [run["detection"]["tested"]["test/map"] for run in runs]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    rows = [json.loads((tmp_path / run / "detection" / "out.json").read_text()) for run in ("one", "two")]
    assert [row["image_id"] for row in rows[0]] == [row["image_id"] for row in rows[1]]
    assert len({row["image_id"] for row in rows[0]}) == 13
