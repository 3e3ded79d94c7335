"""The detection head: what each position has to predict, losses, boxes out, and torchvision's own FCOS beside it."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import fcos as theirs
from torchvision.ops import box_iou

from vimlight.errors import ConfigError
from vimlight.tasks.fcos import FCOS, assign, decode, fcos_loss
from vimlight.tasks.pyramid import Pyramid

PLAIN = [(6, 8, 8), (6, 8, 8)]
STAGED = [(4, 16, 16), (6, 8, 8), (8, 4, 4)]


def maps(shapes=PLAIN, count=2):
    return [torch.randn(count, *shape) for shape in shapes]


def objects(*boxes, labels=None, crowd=None):
    count = len(boxes)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [0] * count, dtype=torch.int64),
        "crowd": torch.tensor(crowd or [False] * count, dtype=torch.bool),
    }


def head(shapes=PLAIN, **options):
    return FCOS(shapes, 3, **{"width": 32, "levels": 3, "convs": 1, **options})


@pytest.mark.parametrize("shapes", [PLAIN, STAGED])
def test_levels_halve(shapes):
    levels = Pyramid(shapes, width=8, levels=3)(maps(shapes))
    assert [level.shape for level in levels] == [(2, 8, size, size) for size in (16, 8, 4)]


def test_missing_levels_are_pooled_and_small_maps_stay_one_position():
    plain = Pyramid(PLAIN, width=8, levels=6)(maps())
    assert [x.shape[2] for x in plain] == [16, 8, 4, 2, 1, 1]
    assert [x.shape[2] for x in Pyramid(STAGED, width=8, levels=5)(maps(STAGED))] == [16, 8, 4, 2, 1]
    assert [x.shape[2] for x in Pyramid(STAGED, width=8, levels=1)(maps(STAGED))] == [16, 8, 4]


def test_maps_of_any_scale_are_levelled():
    pyramid, x = Pyramid(PLAIN, width=8, levels=2), maps()
    assert torch.allclose(pyramid(x)[0], pyramid([x[0] * 1000, x[1]])[0], atol=1e-3)


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match=r"needs maps .*, got features of shapes \[\(64,\)\]"):
        Pyramid([(64,)])
    with pytest.raises(ConfigError, match="at least 1 level"):
        Pyramid(PLAIN, levels=0)
    with pytest.raises(ConfigError, match="multiple of 32, got 48"):
        head(width=48)


def test_positions_lie_in_the_middle_of_their_cells():
    points = head()(maps())["points"]
    assert len(points) == 256 + 64 + 16
    assert torch.allclose(points[0], torch.tensor([1 / 32, 1 / 32, 1 / 16, 1 / 16, 0, 8]))
    assert torch.allclose(points[17], torch.tensor([3 / 32, 3 / 32, 1 / 16, 1 / 16, 0, 8]))
    assert points[-1].tolist() == [0.875, 0.875, 0.25, 0.25, 4, torch.inf]


def test_the_smallest_object_at_its_level_is_assigned():
    points = head()(maps())["points"]
    large, small = (0.1, 0.1, 0.9, 0.9), (0.375, 0.375, 0.625, 0.625)
    index, ignored = assign(points, [objects(large, small), objects()])
    assert not ignored.any()
    assert (index[1] == -1).all()
    grid = index[0, :256].reshape(16, 16)
    # Within a cell and a half of the middle of the small box; the large one reaches too far for this level's cells,
    # but for positions near its middle.
    assert (grid[7:9, 7:9] == 1).all()
    assert (grid == 1).sum() == 4
    assert set(index[0, 256:320].tolist()) == {-1, 0}


def test_what_lies_in_a_crowd_alone_is_ignored():
    points = head()(maps())["points"]
    crowd, inner = (0.0, 0.0, 0.5, 1.0), (0.2, 0.2, 0.4, 0.4)
    index, ignored = assign(points, [objects(crowd, inner, crowd=[True, False])])
    left = points[:, 0] < 0.5
    assert ((index == 1) | (index == -1)).all()
    assert (index[0] == 1).any()
    assert torch.equal(ignored[0], left & (index[0] == -1))


def test_the_loss_agrees_with_torchvision():
    """Given the same positions, which torchvision itself puts at the corners of the cells."""
    torch.manual_seed(0)
    model, side = head(), 64
    outputs = model(maps())
    targets = [objects((0.1, 0.2, 0.5, 0.7), (0.41, 0.4, 0.6, 0.62), labels=[2, 1]), objects()]
    ours = fcos_loss(outputs, targets)
    points = outputs["points"] * torch.tensor([side, side, side, side, 1, 1])
    anchors = torch.cat([points[:, :2] - points[:, 2:4] / 2, points[:, :2] + points[:, 2:4] / 2], dim=1)
    backbone = torch.nn.Identity()
    backbone.out_channels = 32
    other = theirs.FCOS(backbone, 3, head=model.head)
    in_pixels = [{"boxes": target["boxes"] * side, "labels": target["labels"]} for target in targets]
    found = {
        "cls_logits": outputs["logits"],
        "bbox_regression": outputs["distances"],
        "bbox_ctrness": outputs["centreness"][..., None],
    }
    expected = other.compute_loss(in_pixels, found, [anchors, anchors], [256, 64, 16])
    for name, their_name in (("class", "classification"), ("box", "bbox_regression"), ("centreness", "bbox_ctrness")):
        assert torch.allclose(ours[name], expected[their_name], rtol=1e-4), name


def test_perfect_outputs_have_no_loss_for_boxes_and_decode_to_the_objects():
    model = head()
    outputs = model(maps())
    truth = objects((0.11, 0.2, 0.42, 0.61), (0.5, 0.5, 0.97, 0.93), labels=[2, 1])
    index, _ = assign(outputs["points"], [truth, objects()])
    perfect = {**outputs, "logits": torch.full_like(outputs["logits"], -20.0), "centreness": torch.full((2, 336), 5.0)}
    perfect["distances"] = torch.zeros_like(outputs["distances"])
    for point in (index[0] >= 0).nonzero().flatten().tolist():
        x, y, width, height = outputs["points"][point, :4]
        left, top, right, bottom = truth["boxes"][index[0, point]]
        perfect["logits"][0, point, truth["labels"][index[0, point]]] = 20.0
        perfect["distances"][0, point] = torch.stack(
            [(x - left) / width, (y - top) / height, (right - x) / width, (bottom - y) / height]
        )
    losses = fcos_loss(perfect, [truth, objects()])
    assert losses["class"] < 1e-4
    assert losses["box"] < 1e-4
    first, second = decode(perfect)
    assert sorted(first["labels"].tolist()) == [1, 2]
    order = first["labels"].argsort(descending=True)
    assert torch.allclose(box_iou(first["boxes"][order], truth["boxes"]).diagonal(), torch.ones(2), atol=1e-5)
    assert second["boxes"].shape == (0, 4)


def test_decoding_keeps_the_best_and_stays_inside():
    outputs = head()(maps())
    outputs["logits"] = torch.randn_like(outputs["logits"]) * 3
    found = decode(outputs, detections=7, score_threshold=0.3)[0]
    assert found["boxes"].shape == (7, 4)
    assert (found["scores"].diff() <= 0).all()
    assert found["scores"].min() > 0.3
    assert found["boxes"].min() >= 0
    assert found["boxes"].max() <= 1
    for label in found["labels"].unique():
        boxes = found["boxes"][found["labels"] == label]
        assert (box_iou(boxes, boxes).fill_diagonal_(0) <= 0.6).all()


@pytest.mark.parametrize("targets", [[objects(), objects()], [objects((0, 0, 1, 1), crowd=[True]), objects()]])
def test_images_without_objects_give_every_parameter_a_gradient(targets):
    """Otherwise several processes would wait for each other for ever."""
    model = head()
    losses = fcos_loss(model(maps()), targets)
    assert losses["box"] == losses["centreness"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("shapes", [PLAIN, STAGED])
def test_every_parameter_has_a_gradient(shapes):
    model = head(shapes)
    sum(fcos_loss(model(maps(shapes)), [objects((0.1, 0.2, 0.5, 0.7)), objects()]).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_head_learns_in_mixed_precision():
    torch.manual_seed(0)
    model, x = head(), maps()
    two = objects((0.4, 0.1, 0.9, 0.9), (0.1, 0.6, 0.3, 0.9), labels=[0, 1])
    targets = [objects((0.1, 0.2, 0.5, 0.7), labels=[2]), two]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(x)
            loss = sum(fcos_loss(outputs, targets).values())
        assert outputs["logits"].dtype == torch.float32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for found, target in zip(decode(outputs), targets, strict=True):
        best = found["scores"] > 0.4
        overlap = box_iou(target["boxes"], found["boxes"][best])
        assert (overlap.amax(dim=1) > 0.7).all()
        assert torch.equal(found["labels"][best][overlap.argmax(dim=1)], target["labels"])
