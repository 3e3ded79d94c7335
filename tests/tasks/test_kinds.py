"""Every kind of task, as midstream and as downstream: fit, test, predict with files, checkpoints, few shots."""

from __future__ import annotations

import csv
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_kinds import SETTINGS, SIZE, scene_for
from tiny_training import downstream, fill, learned, midstream, tiny_backbone, trainer
from torch.optim import AdamW

from vimlight.data import DownstreamDataModule, MidstreamDataModule
from vimlight.errors import CheckpointError, ConfigError, UnknownNameError
from vimlight.report.callbacks import RunReport
from vimlight.report.predictions import PredictionWriter
from vimlight.tasks import TASKS, Task, create_task, list_tasks
from vimlight.training.base import build_task
from vimlight.zoo import Zoo

EVERY = pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, backbone):
    """Two modules trained on unlike kinds, and a random one."""
    path = tmp_path_factory.mktemp("zoo")
    for kind in ("classification", "segmentation"):
        model = midstream(backbone, data_for(kind), path, name=kind, task=SETTINGS[kind])
        trainer(path, limit_train_batches=2, limit_val_batches=1).fit(model, datamodule=data_for(kind))
    fill(path, backbone, {"random": 0.3})
    return path


def data_for(kind, stage=MidstreamDataModule, **options):
    name = scene_for(kind, "midstream" if stage is MidstreamDataModule else "downstream")
    arguments = {"task": name, "train": 60, "test": 24, "size": SIZE}
    share = {"val_fraction": 0.4} if stage is MidstreamDataModule else {}
    return stage("scenes", arguments, **{"batch_size": 12, **share, **options})


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_predictions(folder, task, data):
    """Checks a table of predictions and the files that it names."""
    rows = rows_of(folder / "out.csv")
    if type(task).rows is not Task.rows:
        assert {row["image_id"] for row in rows} <= set(data.split_ids()["test"])
        return
    assert [row["id"] for row in rows] == data.split_ids()["test"]
    if "file" not in rows[0]:
        assert not (folder / "out").exists()
        return
    files = {path for path in (folder / "out").rglob("*") if path.is_file()}
    assert {folder / row["file"] for row in rows} == files
    assert len(files) == len(rows)
    for path in files:
        check_file(path, task)


def check_file(path, task):
    if path.suffix == ".png":
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("P", (SIZE, SIZE))
            assert np.asarray(image).max() < len(task.class_names)
    elif path.suffix == ".npz":
        assert np.isfinite(np.load(path)["depth"]).all()
        assert np.load(path)["depth"].shape == (SIZE, SIZE)
    elif path.suffix == ".npy":
        assert np.linalg.norm(np.load(path)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
@EVERY
def test_midstream(tmp_path, backbone, settings):
    data = data_for(settings["kind"], augment="light")
    model = midstream(backbone, data, tmp_path / "zoo", name="one", task=settings, optimizer=partial(AdamW, lr=0.02))
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    fit = trainer(tmp_path, epochs=2, callbacks=[RunReport(images=3)])
    fit.fit(model, datamodule=data)
    names = {f"{part}.{name}" for part, m in model.trainable_modules().items() for name, p in m.named_parameters()
             if p.requires_grad}  # fmt: skip
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, start[name])}
    assert moved == names
    task = model.task
    card = Zoo(tmp_path / "zoo").card("one")
    assert card.task == settings["kind"]
    assert card.metrics["val"]["loss"] > 0
    assert (tmp_path / "val_images.png").is_file()
    assert (tmp_path / "val_predictions.csv").is_file()

    fit.save_checkpoint(tmp_path / "one.ckpt")
    results = fit.test(model, datamodule=data, verbose=False)[0]
    assert f"test/{task.monitor}" in results
    assert np.isfinite(results["test/loss"])
    again = midstream(backbone, data, tmp_path / "zoo", task=settings)
    fresh = trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "out.csv"))])
    assert fresh.test(again, datamodule=data, verbose=False, ckpt_path=tmp_path / "one.ckpt")[0] == results
    fresh.predict(again, datamodule=data, ckpt_path=tmp_path / "one.ckpt")
    check_predictions(tmp_path, task, data)


@pytest.mark.slow
@EVERY
def test_downstream_on_a_zoo_of_other_kinds(tmp_path, backbone, zoo, settings):
    data = data_for(settings["kind"], DownstreamDataModule, shots=3, val_shots=1)
    model = downstream(backbone, data, zoo, task=settings, optimizer=partial(AdamW, lr=0.02))
    assert set(model.module_names) == {"classification", "segmentation", "random"}
    fit = trainer(tmp_path, epochs=2, callbacks=[RunReport(images=2), PredictionWriter(str(tmp_path / "out.csv"))])
    fit.fit(model, datamodule=data)
    assert (tmp_path / "gates.csv").is_file()
    if model.task.ranks:
        assert not torch.allclose(model.gates, model.gates.mean(dim=1, keepdim=True), atol=1e-4)
    fit.save_checkpoint(tmp_path / "one.ckpt")
    results = fit.test(model, datamodule=data, verbose=False)[0]
    assert np.isfinite(results["test/loss"])
    again = downstream(backbone, data, zoo, task=settings)
    assert trainer(tmp_path).test(again, datamodule=data, verbose=False, ckpt_path=tmp_path / "one.ckpt")[0] == results
    fit.predict(again, datamodule=data, ckpt_path=tmp_path / "one.ckpt")
    check_predictions(tmp_path, model.task, data)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["logit_ensemble", "k_streams", "best_single"])
@pytest.mark.parametrize("name", ["segmentation, linear", "depth"])
def test_other_aggregators(tmp_path, backbone, zoo, name, how):
    settings = SETTINGS[name]
    data = data_for(settings["kind"], DownstreamDataModule, shots=2, val_shots=1)
    modules = ["classification", "segmentation"]
    model = downstream(backbone, data, zoo, modules=modules, task=settings, aggregator=how)
    fit = trainer(tmp_path, limit_val_batches=0)
    fit.fit(model, datamodule=data)
    assert np.isfinite(fit.test(model, datamodule=data, verbose=False)[0]["test/loss"])


@pytest.mark.slow
@EVERY
def test_training_learns(tmp_path, backbone, settings):
    data = data_for(settings["kind"], batch_size=10)
    model = midstream(backbone, data, task=settings, optimizer=partial(AdamW, lr=0.003))
    fit = trainer(tmp_path, epochs=30, limit_val_batches=0)

    def loss():
        model.eval()
        with torch.no_grad():
            return float(sum(model.task.loss(model(b["image"]), b["target"]) for b in data.batches("train")))

    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, datamodule=data)
    before = loss()
    fit.fit(model, datamodule=data)
    assert loss() < 0.95 * before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segmentation", "depth"])
def test_dense_heads_read_hierarchical_models(tmp_path, name):
    from vimlight.backbone import create_backbone

    torch.manual_seed(0)
    backbone = create_backbone("test_efficientnet", img_size=SIZE)
    for settings in (SETTINGS[name], SETTINGS[f"{name}, linear"]):
        data = data_for(name)
        model = midstream(backbone, data, task=settings)
        fit = trainer(tmp_path, limit_train_batches=2)
        fit.fit(model, datamodule=data)
        assert np.isfinite(fit.test(model, datamodule=data, verbose=False)[0]["test/loss"])


def test_the_task_must_fit_the_data():
    text = r"'segmentation' learns from masks of classes, but the targets of the data \(classification\) are class num"
    with pytest.raises(ConfigError, match=text):
        build_task("segmentation", "classification", ("a", "b"))
    assert build_task("ordinal", "classification", ("a", "b")).kind == "ordinal"


@pytest.mark.parametrize(
    ("task", "error", "text"),
    [
        ({"kind": "segmentation", "hed": "linear"}, UnknownNameError, "setting of task 'segmentation' 'hed'.*'head'"),
        ({"kind": "segmentation", "head": "fpn"}, UnknownNameError, "unknown head of maps 'fpn'"),
        ({"kind": "segmentation", "width": "wide"}, ConfigError, "'width' of task 'segmentation': expected int"),
        ({"kind": "segmentation", "width": 0}, ConfigError, "width must be at least 1, got 0"),
        ({"head": "linear"}, UnknownNameError, "setting of task 'classification' 'head'"),
        ({"kind": "depth", "loss": "l2"}, UnknownNameError, "loss of a depth task 'l2'; did you mean 'l1'"),
        ({"kind": "depth", "scale": "linear"}, ConfigError, "with scale 'linear' take loss 'l1'"),
        ({"kind": "depth", "scale": "lin"}, UnknownNameError, "scale of a depth task 'lin'; did you mean 'linear'"),
        ({"kind": "depth", "focus": 2.0}, ConfigError, "focus must lie between 0 and 1, got 2.0"),
        ({"kind": "ordinal", "loss": "cumulativ"}, UnknownNameError, "'cumulativ'; did you mean 'cumulative'"),
        ({"kind": "regression", "loss": "l2"}, UnknownNameError, "loss of a regression task 'l2'; did you mean 'l1'"),
        ({"kind": "multilabel", "loss": "asl"}, UnknownNameError, "loss of a multilabel task 'asl'"),
        ({"kind": "multilabel", "margin": 1.0}, ConfigError, "a margin from 0 up to but not including 1, got 0.0, 4.0"),
        ({"kind": "retrieval", "temperature": 0.0}, ConfigError, "a temperature above 0 and at least 1 neighbour"),
        ({"kind": "segmentaton"}, UnknownNameError, "unknown task 'segmentaton'; did you mean 'segmentation'"),
    ],
)
def test_mistakes_in_settings(task, error, text):
    kind = TASKS[task["kind"]].kind if task.get("kind") in TASKS else "classification"
    with pytest.raises(error, match=text):
        build_task(task, kind, ("a", "b", "c"))


def test_mistakes_in_models(tmp_path, backbone, zoo):
    data = data_for("segmentation", DownstreamDataModule, shots=1)
    with pytest.raises(ConfigError, match="head of a segmentation task cannot read 'grid'; leave readout out or set"):
        downstream(backbone, data, zoo, readout="grid")
    with pytest.raises(ConfigError, match="this segmentation task has no closed form: leave 'head: ridge' out"):
        downstream(backbone, data, zoo, head="ridge")
    labels = data_for("classification", DownstreamDataModule, shots=1)
    with pytest.raises(ConfigError, match="classification task cannot read 'maps'; leave readout out or set 'last'"):
        downstream(backbone, labels, zoo, readout="maps")
    with pytest.raises(ConfigError, match="lack 'kind', its name"):
        create_task({"head": "linear"}, ("a", "b"))


def test_a_checkpoint_of_another_task_is_refused(tmp_path, backbone):
    data = data_for("ordinal")
    model = midstream(backbone, data, task="ordinal")
    fit = trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    fit.fit(model, datamodule=data)
    fit.save_checkpoint(tmp_path / "one.ckpt")
    other = midstream(backbone, data, task="classification")
    with pytest.raises(CheckpointError, match="of the task 'ordinal', the model's is 'classification'"):
        trainer(tmp_path).test(other, datamodule=data, ckpt_path=tmp_path / "one.ckpt")


@pytest.mark.slow
def test_weights_of_a_checkpoint_resume_exactly(tmp_path, backbone):
    from tiny_training import keeping_checkpoints

    whole, resumed = (
        (midstream(backbone, data, task=SETTINGS["segmentation, linear"]), data)
        for data in (data_for("segmentation", augment="strong"), data_for("segmentation", augment="strong"))
    )
    keeping_checkpoints(tmp_path, epochs=2).fit(whole[0], datamodule=whole[1])
    trainer(tmp_path, epochs=2).fit(resumed[0], datamodule=resumed[1], ckpt_path=tmp_path / "epoch=0.ckpt")
    for name, value in learned(whole[0]).items():
        torch.testing.assert_close(learned(resumed[0])[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_write_every_mask_once(tmp_path, backbone):
    data = data_for("segmentation", batch_size=5)
    model = midstream(backbone, data, task=SETTINGS["segmentation, linear"])
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, datamodule=data)
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, options in ((one, {}), (two, {"devices": 2, "strategy": "ddp_fork"})):
        writer = PredictionWriter(str(folder / "out.csv"))
        trainer(tmp_path, callbacks=[writer], **options).predict(model, datamodule=data, return_predictions=False)
        check_predictions(folder, model.task, data)
        assert {path.name for path in folder.iterdir()} == {"out.csv", "out"}
    assert (one / "out.csv").read_text() == (two / "out.csv").read_text()
    for row in rows_of(one / "out.csv"):
        assert (one / row["file"]).read_bytes() == (two / row["file"]).read_bytes()
    again = trainer(tmp_path, callbacks=[PredictionWriter(str(one / "out.csv"))])
    (one / "out.csv").unlink()
    with pytest.raises(ConfigError, match=r"out' exists; choose another path or pass --predictions.overwrite true"):
        again.predict(model, datamodule=data)


def test_every_kind_is_tried():
    assert set(list_tasks()) <= set(SETTINGS)
