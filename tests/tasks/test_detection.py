"""Detection as a task: training it midstream and downstream, what it writes, and what it says."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from tiny_training import downstream, fill, keeping_checkpoints, learned, midstream, scenes, tiny_backbone, trainer

from vimlight.data import DownstreamDataModule
from vimlight.errors import ConfigError, UnknownNameError
from vimlight.report.predictions import PredictionWriter
from vimlight.tasks import create_task

SMALL = {"kind": "detection", "width": 32, "levels": 2, "convs": 1}
NAMES = ["ant", "bee", "cat"]


def target(boxes, labels, crowd=None):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "crowd": torch.tensor(crowd or [False] * len(labels), dtype=torch.bool),
    }


def prediction(boxes, labels, scores):
    return {**target(boxes, labels), "scores": torch.tensor(scores)}


def test_settings_are_checked():
    with pytest.raises(UnknownNameError, match="setting of task 'detection' 'widht'; did you mean 'width'"):
        create_task({"kind": "detection", "widht": 3}, NAMES)
    with pytest.raises(ConfigError, match=r"score_threshold .* must lie in \[0, 1\), got 1.5"):
        create_task({"kind": "detection", "score_threshold": 1.5}, NAMES)
    with pytest.raises(ConfigError, match="at least 1, got 0, 100"):
        create_task({"kind": "detection", "convs": 0}, NAMES)
    with pytest.raises(ConfigError, match="at least 1 class"):
        create_task("detection", [])
    with pytest.raises(ConfigError, match="multiple of 32"):
        create_task({"kind": "detection", "width": 33}, NAMES).create_head([(4, 8, 8)])


def test_rows_are_coco_results_in_pixels_of_the_file():
    task = create_task("detection", NAMES)
    found = [prediction([[0.1, 0.2, 0.5, 0.7], [0, 0, 1, 1]], [2, 0], [0.9, 0.4]), prediction([], [], [])]
    first, second = task.rows(["17", "leaf.png"], found, [(100, 200), (10, 10)])
    assert second == []
    assert first[0]["image_id"] == 17
    assert task.rows(["0017"], found[:1], [(9, 9)])[0][0]["image_id"] == "0017"
    assert first[0]["category_id"] == 3
    assert first[0]["label"] == "cat"
    assert first[0]["bbox"] == pytest.approx([20, 20, 80, 50], abs=1e-3)
    assert first[1]["bbox"] == [0, 0, 200, 100]


def test_words_and_pictures():
    task = create_task("detection", NAMES)
    assert task.labels([prediction([[0, 0, 1, 1]] * 4, [0, 1, 1, 2], [0.9] * 4)]) == ["ant|bee|bee"]
    assert task.truth([target([[0, 0, 1, 1]] * 2, [0, 1], [True, False]), target([], [])]) == ["bee", ""]
    picture = np.zeros((160, 160, 3), dtype=np.uint8)
    drawn = task.draw(picture, target([[0.25, 0.25, 0.75, 0.75]], [1]))
    assert drawn.shape == picture.shape
    assert drawn[40, 60:100].any()
    assert not picture.any()
    assert not task.draw(picture, target([[0.25, 0.25, 0.75, 0.75]], [1], [True])).any()
    # However low the best score is, its box is drawn; far worse ones are not.
    assert task.draw(picture, prediction([[0.25, 0.25, 0.75, 0.75]], [1], [0.1])).any()
    both = prediction([[0.25, 0.25, 0.75, 0.75], [0, 0, 0.1, 0.1]], [1, 1], [0.9, 0.1])
    assert not task.draw(picture, both)[:20, :20].any()


def test_examples_say_what_lies_at_each_position():
    task = create_task("detection", NAMES)
    maps = [torch.zeros(2, 5, 8, 8), torch.arange(2 * 5 * 16, dtype=torch.float32).reshape(2, 5, 4, 4)]
    objects = target([[0, 0, 0.5, 0.5], [0, 0, 0.25, 0.25], [0.5, 0.5, 1, 1]], [0, 1, 2], [False, False, True])
    vectors, columns, numbers = task.examples(maps, [objects, target([], [])], images=2)
    # Of the first image all but the four positions in the crowd, of the second all.
    assert vectors.shape == (28, 5)
    assert numbers.tolist() == [0] * 12 + [1] * 16
    assert columns.sum(dim=0).tolist() == [3, 1, 0]
    corner = columns[(vectors == maps[1][0, :, 0, 0]).all(dim=1)]
    assert corner.tolist() == [[0, 1, 0]]
    assert len(task.examples(maps, [objects, target([], [])], images=1500)[0]) <= 2


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.mark.parametrize("augment", ["none", "photo"])
def test_a_midstream_module_learns_boxes_and_lands_in_the_zoo(backbone, tmp_path, augment):
    data = scenes("objects", train=48, augment=augment)
    model = midstream(backbone, data, zoo=tmp_path / "zoo", name="objects", task=SMALL)
    fit = trainer(tmp_path, 2)
    before = learned(model)
    fit.fit(model, data)
    assert any(not torch.equal(before[key], value) for key, value in learned(model).items() if "plugin" in key)
    card = model.zoo.card("objects")
    assert card.task == "detection"
    assert {"map", "map_50", "map_75", "loss"} <= set(card.metrics["val"])
    assert {"test/map", "test/map_50"} <= set(fit.test(model, data, verbose=False)[0])


@pytest.mark.parametrize("options", [{}, {"aggregator": "k_streams"}, {"aggregator": "none"}])
def test_a_zoo_is_ranked_and_aggregated_for_boxes(backbone, tmp_path, options):
    zoo = fill(tmp_path / "zoo", backbone, {"one": 0.1, "two": 0.5})
    data = scenes("odd_objects", train=60, stage=DownstreamDataModule, shots=2)
    model = downstream(backbone, data, zoo.path, task=SMALL, **options)
    fit = keeping_checkpoints(tmp_path, 1)
    fit.fit(model, data)
    assert model.module_names == ([] if options.get("aggregator") == "none" else ["one", "two"])
    if model.module_names:
        assert set(model.rank_modules()) == {"one", "two"}
    again = downstream(backbone, data, zoo.path, task=SMALL, **options)
    scores = [
        trainer(tmp_path).test(one, data, verbose=False, ckpt_path=path)[0]
        for one, path in ((model, None), (again, str(tmp_path / "epoch=0.ckpt")))
    ]
    assert scores[0] == pytest.approx(scores[1], nan_ok=True)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_predictions_are_a_file_of_coco_results(backbone, tmp_path, suffix):
    data = scenes("objects", train=16, test_limit=8)
    model = midstream(backbone, data, task={**SMALL, "score_threshold": 0.0, "detections": 5})
    path = tmp_path / f"found{suffix}"
    trainer(tmp_path, callbacks=[PredictionWriter(str(path))]).predict(model, data)
    if suffix == ".csv":
        with path.open() as file:
            rows = list(csv.DictReader(file))
    else:
        rows = json.loads(path.read_text())
    assert list(rows[0]) == ["image_id", "category_id", "bbox", "score", "label"]
    assert len({row["image_id"] for row in rows}) == 8
    assert max(sum(row["image_id"] == one["image_id"] for row in rows) for one in rows) <= 5


def test_no_detection_at_all_is_an_empty_file(backbone, tmp_path):
    data = scenes("objects", train=16, test_limit=8)
    model = midstream(backbone, data, task={**SMALL, "score_threshold": 0.99})
    trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "none.json"))]).predict(model, data)
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_boxes_are_no_classes(backbone):
    data = scenes("objects")
    with pytest.raises(ConfigError, match=r"'classification' learns from class numbers, but .*\(detection\) are boxes"):
        midstream(backbone, data, task="classification")
    with pytest.raises(ConfigError, match="head of a detection task cannot read 'last'"):
        midstream(backbone, data, task=SMALL, readout="last")


@pytest.mark.parametrize(("scores", "count"), [([0.04, 0.03, 0.01], 2), ([0.9, 0.4], 1), ([], 0), ([0.5] * 30, 10)])
def test_the_best_boxes_are_drawn_however_low_their_scores_are(scores, count):
    task, image = create_task("detection", ["cat", "dog"]), np.zeros((64, 64, 3), dtype=np.uint8)
    corners = torch.arange(len(scores))[:, None] / 64
    boxes = torch.cat([corners, corners, corners + 0.4, corners + 0.4], dim=1)
    item = {"boxes": boxes, "scores": torch.tensor(scores), "labels": torch.ones(len(scores), dtype=torch.long)}
    drawn = task.draw(image, item)
    top_left = [drawn[number, number].any() for number in range(len(scores))]
    assert sum(top_left) == count
    assert {tuple(colour) for colour in drawn[drawn.any(axis=2)].tolist()} <= {task.colours()["dog"]}
