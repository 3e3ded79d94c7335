"""Segmentation and depth: losses and scores against their formulas, examples, heads and files."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vimlight.tasks import create_task
from vimlight.tasks.maps import LinearMaps, Standardised, join_maps
from vimlight.tasks.segmentation import palette
from vimlight.tasks.targets import IGNORE

NAMES = ("sky", "road", "tree")


def masks(count=4, size=8):
    targets = torch.randint(0, 3, (count, size, size), dtype=torch.uint8)
    targets[0, :2] = IGNORE
    return targets


def one_hot(targets):
    known = torch.where(targets == IGNORE, 0, targets).long()
    return F.one_hot(known, 3).movedim(-1, 1).float()


def test_segmentation_scores_agree_with_their_definition():
    task, targets = create_task("segmentation", NAMES), masks()
    predicted = torch.where(torch.rand(targets.shape) < 0.6, one_hot(targets).argmax(dim=1), 1).to(torch.uint8)
    scores, confusion = task.metrics(), task.confusion()
    for part in (slice(0, 1), slice(1, 4)):
        scores.update(predicted[part], targets[part])
        confusion.update(predicted[part], targets[part])
    found, known = scores.compute(), targets != IGNORE
    hits = [((predicted == k) & (targets == k)).sum() for k in range(3)]
    either = [(((predicted == k) | (targets == k)) & known).sum() for k in range(3)]
    iou = [float(a / b) for a, b in zip(hits, either, strict=True)]
    assert [float(found[f"iou_{name}"]) for name in NAMES] == pytest.approx(iou)
    assert float(found["miou"]) == pytest.approx(sum(iou) / 3)
    assert float(found["pixel_accuracy"]) == pytest.approx(float((predicted == targets)[known].float().mean()))
    assert int(confusion.compute().sum()) == int(known.sum())


def test_a_class_that_does_not_occur_does_not_count():
    task = create_task("segmentation", NAMES)
    scores, targets = task.metrics(), torch.zeros(1, 4, 4, dtype=torch.uint8)
    scores.update(targets, targets)
    found = scores.compute()
    assert float(found["miou"]) == 1
    assert found["iou_tree"].isnan()


def test_the_segmentation_loss_ignores_unknown_pixels():
    task, targets = create_task("segmentation", NAMES), masks()
    logits = torch.randn(4, 3, 8, 8, requires_grad=True)
    expected = F.cross_entropy(logits, targets.long(), ignore_index=IGNORE)
    torch.testing.assert_close(task.loss(logits, targets), expected)
    task.loss(logits, targets).backward()
    assert not logits.grad[0, :, :2].any()
    nothing = task.loss(logits, torch.full_like(targets, IGNORE))
    assert nothing == 0
    assert task.loss(torch.randn(4, 3, 2, 2).bfloat16(), targets).dtype == torch.float32


def test_outputs_are_enlarged_to_the_input():
    task = create_task("segmentation", NAMES)
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 0] = logits[0, 2, 1, 1] = 5
    predicted = task.predictions(logits, (8, 12))
    assert (predicted.shape, predicted.dtype) == ((1, 8, 12), torch.uint8)
    assert (predicted[0, 0, 0], predicted[0, -1, -1]) == (1, 2)
    assert task.labels(predicted) == ["sky|road|tree"]


def test_shares_of_classes_around_positions():
    task, targets = create_task("segmentation", NAMES), masks()
    targets[1, :4, :4] = IGNORE
    targets[1, 0, 0] = 2
    shares, known = task.pooled(targets, (2, 2))
    assert known.tolist() == [[[True, True], [True, True]]] * 4
    assert shares[1, :, 0, 0].tolist() == [0, 0, 1]
    quarter = targets[2, :4, 4:]
    expected = [float((quarter == k).float().mean()) for k in range(3)]
    assert shares[2, :, 0, 1].tolist() == pytest.approx(expected)
    targets[3] = IGNORE
    assert not task.pooled(targets, (2, 2))[1][3].any()


@pytest.mark.parametrize("images", [4, 10_000])
def test_examples_are_positions_with_their_surroundings(images):
    task, targets = create_task({"kind": "segmentation", "head": "linear"}, NAMES), masks(size=16)
    maps = [torch.randn(4, 5, 8, 8), torch.randn(4, 3, 4, 4)]
    vectors, columns, numbers = task.examples(maps, targets, images)
    assert vectors.shape[0] == columns.shape[0] == (4 * 64 if images == 4 else 4 * 4) - (0 if images != 4 else 8)
    torch.testing.assert_close(columns.sum(dim=1), torch.ones(len(columns)))
    joined = join_maps(maps).movedim(1, -1).flatten(1, 2)
    assert all((joined[image] == vector).all(dim=1).any() for vector, image in zip(vectors, numbers, strict=True))


def test_a_linear_head_is_the_closed_form_at_every_position():
    task = create_task({"kind": "segmentation", "head": "linear"}, NAMES)
    targets = masks(6, 8)
    features = one_hot(targets)[:, :, ::2, ::2] + 0.3 * torch.randn(6, 3, 4, 4)
    coarse = targets[:, ::2, ::2]
    head = task.create_head([(3, 4, 4)])
    assert isinstance(head, LinearMaps)
    head.solve(task.examples([features], coarse, 6), task, "ridge")
    right = task.predictions(head([features]), (4, 4)) == coarse
    assert right[coarse != IGNORE].float().mean() > 0.8


def test_inputs_of_a_head_are_standardised():
    maps = [5 + 3 * torch.randn(6, 4, 8, 8), torch.randn(6, 2, 4, 4) * 100]
    seen = []

    class Body(torch.nn.Module):
        def forward(self, maps):
            seen[:] = maps
            return maps[0]

    head = Standardised([4, 2], Body())
    head(maps)
    assert all(torch.equal(a, b) for a, b in zip(seen, maps, strict=True))
    head.start(maps, None)
    head(maps)
    for x in seen:
        torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(x.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.ones(x.shape[1]), atol=1e-3, rtol=0)


def test_a_mask_is_written_at_the_size_of_its_image():
    task = create_task("segmentation", NAMES)
    mask = torch.zeros(4, 6, dtype=torch.uint8)
    mask[:, 3:] = 2
    suffix, content = task.file(mask, (8, 10))
    image = Image.open(io.BytesIO(content))
    assert (suffix, image.mode, image.size) == (".png", "P", (10, 8))
    pixels = np.asarray(image)
    assert (pixels[:, :5] == 0).all()
    assert (pixels[:, 5:] == 2).all()
    assert np.asarray(image.convert("RGB"))[0, -1].tolist() == palette()[2].tolist()


def test_colours_are_told_apart():
    assert len({tuple(colour) for colour in palette().tolist()}) == 256
    assert palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


def test_the_colours_of_drawings_are_those_of_the_classes():
    task, image = create_task("segmentation", NAMES), np.zeros((1, len(NAMES), 3), dtype=np.uint8)
    drawn = task.draw(image, torch.arange(len(NAMES))[None])[0]
    np.testing.assert_allclose(drawn, 0.55 * np.array(list(task.colours().values())), atol=1)
    assert list(task.colours()) == list(NAMES)
    assert create_task("depth").colours() == {}


def test_drawings_leave_unknown_pixels_alone():
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    mask = torch.full((4, 4), IGNORE, dtype=torch.uint8)
    mask[0] = 1
    drawn = create_task("segmentation", NAMES).draw(image, mask)
    assert (drawn[1:] == 100).all()
    assert drawn[0, 0].tolist() != [100, 100, 100]
    depth = torch.full((4, 4), float("nan"))
    depth[0] = torch.arange(1.0, 5.0)
    drawn = create_task("depth").draw(image, depth)
    assert drawn[0, 0, 0] == 255
    assert drawn[0, -1, 0] == 0
    assert drawn[1, 0].tolist() == [40, 60, 160]


def depths(count=3):
    targets = 1 + 4 * torch.rand(count, 8, 8)
    targets[0, :3] = float("nan")
    return targets


def test_the_scale_invariant_loss_agrees_with_its_formula():
    targets = depths()
    outputs = torch.randn(3, 1, 8, 8, requires_grad=True)
    known = targets.isfinite()
    difference = outputs[:, 0][known] - targets[known].log()
    for focus in (0.0, 0.5, 1.0):
        task = create_task({"kind": "depth", "focus": focus})
        expected = (difference.square().mean() - focus * difference.mean().square()).sqrt()
        torch.testing.assert_close(task.loss(outputs, targets), expected)
    forgiving = create_task({"kind": "depth", "focus": 1.0})
    torch.testing.assert_close(forgiving.loss(outputs + 3, targets), forgiving.loss(outputs, targets))
    forgiving.loss(outputs, targets).backward()
    assert torch.isfinite(outputs.grad).all()
    exact = targets.nan_to_num(1.0).log()[:, None].requires_grad_()
    create_task("depth").loss(exact, targets).backward()
    assert torch.isfinite(exact.grad).all()
    assert create_task("depth").loss(outputs, torch.full_like(targets, float("nan"))) == 0


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_the_l1_loss_is_in_real_units(scale):
    task, targets = create_task({"kind": "depth", "loss": "l1", "scale": scale}), depths()
    outputs = targets.nan_to_num(2.0)[:, None]
    outputs = outputs.log() if scale == "log" else outputs
    assert task.loss(outputs, targets) < 1e-5
    found = task.predictions(outputs, (8, 8))
    torch.testing.assert_close(found[targets.isfinite()], targets[targets.isfinite()])


def test_depth_errors_agree_with_their_definition():
    targets, predicted = depths(), 1 + 4 * torch.rand(3, 8, 8)
    scores = create_task("depth").metrics()
    for part in (slice(0, 1), slice(1, 3)):
        scores.update(predicted[part], targets[part])
    found, known = scores.compute(), targets.isfinite()
    p, t = predicted[known], targets[known]
    expected = {
        "abs_rel": ((p - t).abs() / t).mean(),
        "rmse": (p - t).square().mean().sqrt(),
        "mae": (p - t).abs().mean(),
        **{f"delta{n}": (torch.maximum(p / t, t / p) < 1.25**n).float().mean() for n in (1, 2, 3)},
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_depth_starts_around_the_middle_of_the_targets():
    task, targets = create_task({"kind": "depth", "width": 8}), depths(4)
    shapes = [(3, 2, 2)] * 4
    head = task.create_head(shapes)
    maps = [torch.randn(4, *shape) for shape in shapes]
    head.start(maps, targets)
    middle = targets[targets.isfinite()].log().mean().exp()
    predicted = task.predictions(head.eval()(maps), (8, 8))
    assert (predicted / middle).log().abs().max() < 0.7


def test_depth_is_written_at_the_size_of_its_image():
    suffix, content = create_task("depth").file(torch.full((4, 4), 2.5), (6, 9))
    assert suffix == ".npz"
    found = np.load(io.BytesIO(content))["depth"]
    assert (found.shape, found.dtype) == ((6, 9), np.float32)
    np.testing.assert_allclose(found, 2.5)
