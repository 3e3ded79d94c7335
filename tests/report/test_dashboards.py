"""The same runs on every logger: what each of them kept, read back from disk."""

from __future__ import annotations

import json

import pytest
from kept import READERS

from vimlight.report.dashboards import DASHBOARDS

pytestmark = pytest.mark.slow
# As tables are laid out; W&B and the others have what a figure was drawn of beside it.
TABLES = {
    "ranking": ["rank", "features", "left_out_error", "less_than_bare", "images"],
    "val/classes": ["name", "images", "precision", "recall", "f1"],
    "val/reliability": ["images", "confidence", "accuracy"],
    "val/precision_recall": ["class", "recall", "precision"],
    "gates": ["place", "birds"],
}
CHARTS = {"val/reliability": ["confidence", "accuracy", "curve", "images"]}


@pytest.fixture(params=list(DASHBOARDS))
def name(request):
    return request.param


@pytest.fixture
def made(name, runs):
    return READERS[name](runs["midstream"].root)


@pytest.fixture
def used(name, runs):
    return READERS[name](runs["downstream"].root)


def test_every_dashboard_is_read_back():
    assert set(READERS) == set(DASHBOARDS)


@pytest.mark.parametrize("key", ["train/loss_step", "lr", "gate/birds"])
def test_curves_have_every_step(key, used, runs):
    steps, values = zip(*used.curve(key), strict=True)
    assert steps == tuple(range(runs["downstream"].steps))
    assert len(set(values)) > 1


@pytest.mark.parametrize("key", ["gates", "val/confusion", "val/images", "val/precision_recall", "val/reliability"])
def test_figures(key, used):
    assert used.has_figure(key)


@pytest.mark.parametrize("key", list(TABLES))
def test_tables(key, used, name):
    assert used.columns(key) == (CHARTS.get(key, TABLES[key]) if name == "wandb" else TABLES[key])


def test_the_confusion_matrix_is_a_table_of_counts(used, name):
    found = used.columns("val/confusion")
    assert found == (["Actual", "Predicted", "nPredictions"] if name == "wandb" else ["true", *map(str, range(10))])


def test_predictions_have_their_pictures_where_there_is_room(used, name):
    columns = ["id", "image", "true", "predicted", "probability"]
    keeps = name in ("wandb", "mlflow")
    assert used.columns("val/predictions") == [each for each in columns if keeps or each != "image"]
    if name == "mlflow":
        cell = json.loads((used.folder / "val/predictions.json").read_text())["data"][0][1]
        assert (used.folder / cell["filepath"]).read_bytes().startswith(b"\x89PNG")


def test_texts(used):
    assert "leave-one-out error" in used.text("zoo.txt")
    assert "torch" in used.text("versions.json")


def test_a_module_is_made_by_one_run_and_used_by_the_other(made, used):
    sha = made.artifacts(used=False)["module-birds"]
    assert len(sha) == 64
    assert used.artifacts(used=True) == {"module-birds": sha}
    assert list(used.artifacts(used=False)) == ["downstream-ens_moe"]


def test_the_best_score_is_a_number_of_its_own(used):
    assert used.number("best/val/accuracy") == pytest.approx(max(value for _, value in used.curve("val/accuracy")))
