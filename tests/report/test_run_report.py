"""What a run shows: on two fake loggers, as files, and with the counts right."""

from __future__ import annotations

import csv

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tiny_report import CLASSES, IMAGES, Drawn, TinyModule, loader
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassCalibrationError

from vimlight.aggregation.ranking import Ranking
from vimlight.backbone import Preprocessing
from vimlight.errors import ConfigError
from vimlight.pages.sections.reliability import error
from vimlight.pages.sources import find
from vimlight.plugins import create_plugin
from vimlight.report.callbacks import RunReport, restore_image
from vimlight.report.dashboards import Dashboards, Table
from vimlight.report.plots import gate_heatmap, png
from vimlight.training.downstream import DownstreamModule
from vimlight.zoo import Zoo


class FakeBoard(TensorBoardLogger):
    """Keeps what a TensorBoard logger is shown."""

    def __init__(self):
        self.shown = {}

    @property
    def experiment(self):
        return self

    def add_image(self, key, image, step, dataformats):
        assert dataformats == "HWC"
        self.shown[key] = (step, image)

    def add_text(self, key, text, step):
        self.shown[key] = (step, text)


class FakeWandb(WandbLogger):
    """Keeps what a Weights & Biases logger is shown."""

    def __init__(self):
        self.shown = {}

    def log_image(self, key, images, step=None, **kwargs):
        self.shown[key] = (step, images[0])

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None):
        self.shown[key] = (step, columns, data)

    def log_metrics(self, metrics, step=None):
        self.shown |= {key: (step, value) for key, value in metrics.items()}


@pytest.fixture
def model():
    return TinyModule()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_figure_and_table_on_every_logger(tmp_path):
    board, wandb = FakeBoard(), FakeWandb()
    figure = png(gate_heatmap(np.ones((1, 2)) / 2, ["output"], ["x", "y"]))
    image = np.zeros((4, 4, 3), np.uint8)
    rows = [["a|b", image, 1.0], ["c", image, 2.0]]
    for loggers in ([board, wandb], []):
        boards = Dashboards(loggers, tmp_path)
        boards.figure("val/gates", figure, 3)
        boards.table("val/table", Table(["id", "image", "value"], rows), 3)
        assert bool(list(tmp_path.iterdir())) == (not loggers)
    assert board.shown["val/gates"][0] == wandb.shown["val/gates"][0] == 3
    assert board.shown["val/gates"][1].shape == wandb.shown["val/gates"][1].shape
    assert board.shown["val/table"][1].splitlines()[:3] == ["| id | value |", "| --- | ---: |", "| a\\|b | 1.0 |"]
    assert type(wandb.shown["val/table"][2][0][1]).__name__ == "Image"
    assert (tmp_path / "val_gates.png").read_bytes().startswith(b"\x89PNG")
    assert rows_of(tmp_path / "val_table.csv") == [{"id": "a|b", "value": "1.0"}, {"id": "c", "value": "2.0"}]


def test_fit_shows_the_last_validation_once(model, make_trainer, tmp_path):
    report = RunReport(images=4)
    matrices = []
    take = report._take
    report._take = lambda *arguments: (take(*arguments), matrices.append(report._gathered["confusion"]))
    trainer = make_trainer(report, logger=CSVLogger(tmp_path, name="log"), max_epochs=3)
    trainer.fit(model, loader(), loader())
    # The first is the sanity check; none carries over into the next.
    assert [matrix.sum() for matrix in matrices] == [4, IMAGES, IMAGES, IMAGES]
    files = {path.name for path in (tmp_path / "log" / "version_0").iterdir()}
    assert {"val_confusion.png", "val_predictions.csv", "val_images.png"} <= files
    assert "gates.csv" not in files


def test_confusion_and_reliability_are_tables_that_a_report_reads(model, make_trainer, tmp_path):
    logger = CSVLogger(tmp_path, name="log")
    make_trainer(RunReport(images=0), logger=logger, log_every_n_steps=1).fit(model, loader(), loader())
    (run,) = find([tmp_path]).runs
    assert run.confusion["val"].classes == list(CLASSES)
    assert [sum(row) for row in run.confusion["val"].counts] == [3, 3, 2]
    with torch.no_grad():
        predictions = model.task.predictions(model.eval()(Drawn().images))
    confidence, named = predictions.max(dim=1)
    bins = [each for each in run.reliability["val"] if each.images]
    assert sum(each.images for each in bins) == IMAGES
    right = float((named == Drawn().targets).double().mean())
    assert sum(each.images * each.accuracy for each in bins) / IMAGES == pytest.approx(right)
    mean = sum(each.images * each.confidence for each in bins) / IMAGES
    assert mean == pytest.approx(float(confidence.mean()), rel=1e-5)
    expected = MulticlassCalibrationError(3, n_bins=15)(predictions, Drawn().targets)
    assert error(bins) == pytest.approx(float(expected), rel=1e-5)
    assert run.versions["torch"] == torch.__version__.partition("+")[0]


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_predictions_are_the_model_s_own(kind, make_trainer, tmp_path):
    model = TinyModule(kind)
    make_trainer(RunReport(images=4)).test(model, loader(kind), verbose=False)
    rows = rows_of(tmp_path / "run" / "test_predictions.csv")
    # Four batches of two: one image of each.
    assert [row["id"] for row in rows] == ["img0", "img2", "img4", "img6"]
    assert [row["true"] for row in rows] == ["cat", "cat", "dog", "eel"]
    with torch.no_grad():
        probabilities = model.task.predictions(model.eval()(Drawn(kind).images[::2]))
    assert [row["predicted"] for row in rows] == model.task.labels(probabilities)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], probabilities.amax(1), rtol=1e-4)


def test_images_are_taken_evenly_and_none_if_not_wanted(model, make_trainer, tmp_path):
    make_trainer(RunReport(images=2)).validate(model, loader(), verbose=False)
    assert [row["id"] for row in rows_of(tmp_path / "run" / "val_predictions.csv")] == ["img2", "img6"]
    make_trainer(RunReport(images=0), default_root_dir=tmp_path / "none").validate(model, loader(), verbose=False)
    drawn = ("confusion", "precision_recall", "reliability")
    files = {f"val_{key}.{suffix}" for key in drawn for suffix in ("csv", "png")}
    files |= {"val_classes.csv", "versions.json"}
    assert {path.name for path in (tmp_path / "none").iterdir()} == files
    make_trainer(RunReport(images=100), default_root_dir=tmp_path / "all").validate(model, loader(), verbose=False)
    assert len(rows_of(tmp_path / "all" / "val_predictions.csv")) == IMAGES


@pytest.mark.parametrize(("aggregator", "places"), [("ens_moe", 2), ("logit_ensemble", 1), ("none", 0)])
def test_gates_of_a_downstream_model(aggregator, places, model, make_trainer, tmp_path):
    zoo = Zoo(tmp_path / "zoo")
    for name in ("birds", "cars"):
        zoo.add(name, create_plugin("adaptformer", model.backbone, places=["attn", "mlp"]))
    downstream = DownstreamModule(model.backbone, zoo=str(zoo.path), aggregator=aggregator, class_names=CLASSES)
    make_trainer(RunReport(images=0)).test(downstream, loader(), verbose=False)
    path = tmp_path / "run" / "gates.csv"
    assert path.is_file() == path.with_name("gates.png").is_file() == bool(places)
    if places:
        rows = rows_of(path)
        assert [row["place"] for row in rows] == downstream.aggregator.places
        assert len(rows) == places
        shares = [[float(row["birds"]), float(row["cars"])] for row in rows]
        np.testing.assert_allclose(shares, downstream.gates.numpy(), rtol=1e-6)


def test_the_ranking_of_a_downstream_model_is_stored(model, make_trainer, tmp_path):
    downstream = DownstreamModule(model.backbone, zoo=str(tmp_path / "zoo"), aggregator="none", class_names=CLASSES)
    report, path = RunReport(images=0), tmp_path / "run" / "ranking.csv"
    make_trainer(report).test(downstream, loader(), verbose=False)
    assert not path.exists()
    downstream.ranking = Ranking(8, 0.3, {"birds": 0.2, "cars": 0.4}, "ens_moe", 0.1)
    make_trainer(report).test(downstream, loader(), verbose=False)
    rows = rows_of(path)
    assert [row["features"] for row in rows] == ["ens_moe", "birds", "bare backbone", "cars"]
    np.testing.assert_allclose([float(row["left_out_error"]) for row in rows], [0.1, 0.2, 0.3, 0.4])
    assert {row["images"] for row in rows} == {"8"}


def test_other_models_are_left_alone(make_trainer, tmp_path):
    class Other(pl.LightningModule):
        def test_step(self, batch, batch_index):
            self.log("mean", batch.mean())

    make_trainer(RunReport()).test(Other(), DataLoader(torch.randn(4, 2)), verbose=False)
    assert not (tmp_path / "run").exists()


def test_fast_dev_run_leaves_no_files(model, make_trainer, tmp_path):
    make_trainer(RunReport(), fast_dev_run=True).validate(model, loader(), verbose=False)
    assert not (tmp_path / "run").exists()


def test_the_model_is_left_in_its_mode(model, make_trainer):
    trainer = make_trainer(RunReport())
    trainer.fit(model, loader(), loader())
    assert model.training
    assert not model.backbone.training


def test_negative_number_of_images():
    with pytest.raises(ConfigError, match="images must be at least 0, got -1"):
        RunReport(images=-1)


def test_normalisation_is_undone():
    preprocessing = Preprocessing((4, 4), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pixels = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8)
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    normalised = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_array_equal(restore_image(normalised, preprocessing), pixels.permute(1, 2, 0).numpy())


class Recorded(RunReport):
    """Writes down the matrix that is shown."""

    def _show(self, trainer, pl_module, split):
        if trainer.is_global_zero:
            np.save(f"{trainer.default_root_dir}/matrix.npy", self._gathered["confusion"])
        super()._show(trainer, pl_module, split)


@pytest.mark.slow
def test_two_processes_count_each_image_once(model, make_trainer, tmp_path):
    (tmp_path / "run").mkdir()
    make_trainer(Recorded(), devices=2, strategy="ddp_fork").validate(model, loader(), verbose=False)
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "matrix.npy").sum(axis=1), [3, 3, 2])
    assert (tmp_path / "run" / "val_confusion.png").is_file()


def test_tensorboard_shows_everything(model, make_trainer, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, name="board")
    make_trainer(RunReport(), logger=logger).test(model, loader(), verbose=False)
    events = accumulator.EventAccumulator(logger.log_dir).Reload()
    drawn = {f"test/{key}" for key in ("confusion", "reliability", "precision_recall")}
    assert set(events.Tags()["images"]) == {*drawn, "test/images"}
    written = {*drawn, "test/classes", "test/predictions", "versions.json"}
    assert set(events.Tags()["tensors"]) == {f"{key}/text_summary" for key in written}


@pytest.mark.slow
def test_wandb_works_offline(model, make_trainer, tmp_path):
    import wandb

    logger = WandbLogger(save_dir=tmp_path, offline=True)
    make_trainer(RunReport(), logger=logger).test(model, loader(), verbose=False)
    media = next(tmp_path.rglob("media"))
    wandb.finish()
    images = {path.name.split("_")[0] for path in (media / "images" / "test").iterdir()}
    assert images == {"confusion", "images", "precision", "reliability"}
    tables = {path.name.split("_")[0] for path in (media / "table" / "test").iterdir()}
    assert tables == {"classes", "confusion", "precision", "predictions", "reliability"}
