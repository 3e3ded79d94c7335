"""Average precision of boxes and its curves, beside pycocotools itself."""

from __future__ import annotations

import builtins
import contextlib
import io
import json

import pytest
import torch

from vimlight.errors import ConfigError
from vimlight.tasks.box_metrics import box_curves, box_metrics


def truth(number, boxes, labels, crowd=None, size=(20, 40)):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "crowd": torch.tensor(crowd or [False] * len(labels), dtype=torch.bool),
        "size": torch.tensor(size),
        "image": torch.tensor(number),
    }


def found(boxes, labels, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def random_images(count=12, seed=0):
    """Images with noisy, missing and surplus detections, crowds, and images without objects."""
    generator = torch.Generator().manual_seed(seed)
    predictions, targets = [], []
    for number in range(count):
        size = number % 4
        low = torch.rand(size, 2, generator=generator) * 0.6
        boxes = torch.cat([low, low + 0.1 + 0.3 * torch.rand(size, 2, generator=generator)], dim=1)
        labels = torch.randint(0, 3, (size,), generator=generator)
        crowd = torch.rand(size, generator=generator) < 0.2
        target = truth(number, boxes.tolist(), labels.tolist(), crowd.tolist(), size=(30 + number, 50))
        noisy = (boxes + 0.03 * torch.randn(boxes.shape, generator=generator)).clamp(0, 1)
        extra = torch.cat([noisy, torch.tensor([[0.2, 0.2, 0.5, 0.4]])])
        scores = torch.rand(size + 1, generator=generator)
        predictions.append(found(extra.tolist(), [*labels.tolist(), number % 3], scores.tolist()))
        targets.append(target)
    return predictions, targets


def by_pycocotools(tmp_path, predictions, targets):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(items):
        for target, item in zip(targets, items, strict=True):
            height, width = target["size"].tolist()
            for index, (left, top, right, bottom) in enumerate(item["boxes"].double().tolist()):
                box = [left * width, top * height, (right - left) * width, (bottom - top) * height]
                yield target, item, index, box

    annotations = [
        {
            "id": number, "image_id": int(target["image"]), "category_id": int(item["labels"][index]), "bbox": box,
            "iscrowd": int(item["crowd"][index]), "area": box[2] * box[3],
        }
        for number, (target, item, index, box) in enumerate(rows(targets), start=1)
    ]  # fmt: skip
    results = [
        {
            "image_id": int(target["image"]), "category_id": int(item["labels"][index]), "bbox": box,
            "score": float(item["scores"][index]),
        }
        for target, item, index, box in rows(predictions)
    ]  # fmt: skip
    images = [{"id": int(target["image"])} for target in targets]
    categories = [{"id": number} for number in range(3)]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_the_numbers_are_those_of_pycocotools(tmp_path):
    predictions, targets = random_images()
    metrics = box_metrics()
    for start in range(0, 12, 5):
        metrics.update(predictions[start : start + 5], targets[start : start + 5])
    numbers = {key: float(value) for key, value in metrics.compute().items()}
    expected = by_pycocotools(tmp_path, predictions, targets).stats[:3].tolist()
    assert numbers == pytest.approx(dict(zip(("map", "map_50", "map_75"), expected, strict=True)), abs=1e-4)
    assert 0 < numbers["map"] < numbers["map_50"] < 1


def gathered(count, predictions, targets):
    metric = box_curves(count)
    for start in range(0, len(targets), 5):
        metric.update(predictions[start : start + 5], targets[start : start + 5])
    return metric.compute()


def test_curves_are_those_of_pycocotools_and_have_its_area(tmp_path):
    predictions, targets = random_images()
    curves = gathered(4, predictions, targets)
    assert curves.shape == (4, 101, 2)
    precision = torch.from_numpy(by_pycocotools(tmp_path, predictions, targets).eval["precision"][0, :, :, 0, -1])
    torch.testing.assert_close(curves[:3, :, 1], precision.T.flip(1).float())
    torch.testing.assert_close(curves[0, :, 0], torch.linspace(1, 0, 101))
    numbers = box_metrics()
    numbers.update(predictions, targets)
    assert float(curves[:3, :, 1].mean()) == pytest.approx(float(numbers.compute()["map_50"]))


def test_a_class_that_no_image_has_has_no_curve_and_one_that_is_never_found_has_no_precision():
    box = [0.1, 0.1, 0.5, 0.5]
    curves = gathered(3, [found([box], [2], [0.9])], [truth(0, [box], [1])])
    assert curves[[0, 2]].isnan().all()
    assert curves[1, :, 1].tolist() == [0.0] * 101


def test_a_curve_falls_where_a_false_box_is_surer_than_a_right_one():
    right, wrong, other = [0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.6, 0.6], [0.6, 0.1, 0.9, 0.4]
    surest_first = found([right, wrong, other], [0, 0, 0], [0.9, 0.8, 0.7])
    (curve,) = gathered(1, [surest_first], [truth(0, [right, other], [0, 0])])
    assert curve[curve[:, 0] > 0.5, 1].tolist() == pytest.approx([2 / 3] * 50)
    assert curve[curve[:, 0] <= 0.5, 1].tolist() == [1.0] * 51


def test_perfect_boxes_are_perfect_and_crowds_do_not_count():
    metrics = box_metrics()
    box, other = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
    metrics.update(
        [found([box, other], [1, 1], [0.9, 0.95]), found([], [], [])],
        [truth(0, [box, [0.5, 0.5, 1, 1]], [1, 1], [False, True]), truth(1, [], [])],
    )
    assert float(metrics.compute()["map"]) == pytest.approx(1.0)


@pytest.mark.parametrize("create", [box_metrics, lambda: box_curves(3)])
def test_images_that_were_seen_twice_count_once(create):
    predictions, targets = random_images()
    once, twice = create(), create()
    once.update(predictions, targets)
    twice.update(predictions, targets)
    twice.update(predictions[3:7], targets[3:7])
    torch.testing.assert_close(once.compute(), twice.compute())


def test_nothing_to_find_is_not_a_number():
    metrics = box_metrics()
    metrics.update([found([[0, 0, 1, 1]], [0], [0.5])], [truth(0, [], [])])
    assert metrics.compute()["map"].isnan()


def test_names_get_their_prefix_and_nothing_stays_after_a_reset():
    metrics = box_metrics().clone(prefix="val/")
    metrics.update(*random_images())
    metrics.compute()
    metrics.reset()
    metrics.update(*random_images(seed=1))
    fresh = box_metrics()
    fresh.update(*random_images(seed=1))
    assert metrics.compute() == {f"val/{key}": value for key, value in fresh.compute().items()}


def test_a_missing_pycocotools_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "pycocotools":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for create in (box_metrics, lambda: box_curves(2)):
        with pytest.raises(ConfigError, match=r"pip install 'vimlight\[detection\]'"):
            create()
