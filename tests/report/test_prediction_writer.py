"""Predictions as files: formats, order, and what is refused before any work."""

from __future__ import annotations

import csv
import json
import sys

import pytest
import torch
from tiny_report import CLASSES, IMAGES, Drawn, TinyModule, loader
from torch.utils.data import DataLoader

from vimlight.errors import ConfigError, UnknownNameError
from vimlight.report.predictions import PredictionWriter

NAMES = ["id", "true", "label", "p_cat", "p_dog", "p_eel"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TinyModule().eval()


def read_csv(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    words = ("id", "true", "label")
    return [{key: value if key in words else float(value) for key, value in row.items()} for row in rows]


def read_parquet(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(path).to_pylist()


READERS = {".csv": read_csv, ".json": lambda path: json.loads(path.read_text()), ".parquet": read_parquet}


def expected(model):
    with torch.no_grad():
        return model.task.predictions(model(Drawn().images))


def check(rows, model, length=IMAGES):
    assert [row["id"] for row in rows] == [f"img{n}" for n in range(length)]
    assert list(rows[0]) == NAMES
    probabilities = torch.tensor([[row[name] for name in NAMES[3:]] for row in rows])
    torch.testing.assert_close(probabilities, expected(model)[:length], atol=1e-5, rtol=1e-5)
    assert [row["label"] for row in rows] == [CLASSES[k] for k in probabilities.argmax(dim=1)]
    assert [row["true"] for row in rows] == [CLASSES[k] for k in Drawn().targets[:length]]


@pytest.mark.parametrize("suffix", READERS)
def test_round_trip(suffix, model, make_trainer, tmp_path):
    path = tmp_path / "new" / f"predictions{suffix}"
    make_trainer(PredictionWriter(str(path))).predict(model, loader(), return_predictions=False)
    check(READERS[suffix](path), model)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("targets", "words"),
    [([-1] * 8, None), ([0, -1, 2, -1, 1, 1, -1, 0], ["cat", "", "eel", "", "dog", "dog", "", "cat"])],
    ids=["none", "some"],
)
def test_images_without_labels_have_no_true_one(model, make_trainer, tmp_path, targets, words):
    data = Drawn()
    data.targets = torch.tensor(targets)
    path = tmp_path / "predictions.json"
    make_trainer(PredictionWriter(str(path))).predict(model, DataLoader(data, batch_size=2), return_predictions=False)
    rows = json.loads(path.read_text())
    assert [row.get("true") for row in rows] == (words or [None] * 8)


def test_several_loaders_follow_each_other(model, make_trainer, tmp_path):
    class Two(TinyModule):
        def predict_step(self, batch, batch_index, dataloader_idx=0):
            return super().predict_step(batch, batch_index)

    path = tmp_path / "predictions.json"
    make_trainer(PredictionWriter(str(path))).predict(Two(), [loader(length=2), loader(length=3)])
    assert [row["id"] for row in json.loads(path.read_text())] == ["img0", "img1", "img0", "img1", "img2"]


def test_unknown_suffix_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"'\.cvs'; did you mean '\.csv'"):
        PredictionWriter("predictions.cvs")


def test_existing_file_is_refused_before_any_work(model, make_trainer, tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("kept")
    batches = [{"image": "would fail if it were looked at"}]
    with pytest.raises(ConfigError, match=r"predictions\.csv.*exists.*or pass --predictions.overwrite true"):
        make_trainer(PredictionWriter(str(path))).predict(model, batches)
    assert path.read_text() == "kept"
    make_trainer(PredictionWriter(str(path), overwrite=True)).predict(model, loader())
    check(read_csv(path), model)


def test_other_stages_do_not_mind_the_file(model, make_trainer, tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("kept")
    make_trainer(PredictionWriter(str(path))).validate(model, loader(), verbose=False)
    assert path.read_text() == "kept"


def test_parquet_without_pyarrow_names_the_extra(model, make_trainer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'vimlight\[parquet\]'"):
        make_trainer(PredictionWriter(str(tmp_path / "p.parquet"))).predict(model, loader())


@pytest.mark.slow
def test_two_processes_write_each_image_once_in_order(model, make_trainer, tmp_path):
    path = tmp_path / "predictions.csv"
    trainer = make_trainer(PredictionWriter(str(path)), devices=2, strategy="ddp_fork")
    trainer.predict(model, loader(length=7), return_predictions=False)
    check(read_csv(path), model, length=7)
