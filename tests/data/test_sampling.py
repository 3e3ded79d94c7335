from __future__ import annotations

import re

import pytest
import torch

from vimlight.data import few_shot, random_subset, set_apart
from vimlight.data.sampling import few_images
from vimlight.errors import DataError

TARGETS = torch.arange(300) % 5


def test_few_shot_is_balanced_and_disjoint():
    train, val = few_shot(TARGETS, 7, 3, 5, val_shots=4)
    assert TARGETS[train].bincount().tolist() == [7] * 5
    assert TARGETS[val].bincount().tolist() == [4] * 5
    assert not set(train.tolist()) & set(val.tolist())


def test_few_shot_repeats_with_the_seed_alone(untouched_rng):
    first = few_shot(TARGETS, 5, 1, 5, val_shots=5)
    torch.rand(3, generator=torch.Generator().manual_seed(9))
    again = few_shot(TARGETS, 5, 1, 5, val_shots=5)
    other = few_shot(TARGETS, 5, 2, 5, val_shots=5)
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.val, again.val)
    assert not torch.equal(first.train, other.train)


def test_few_shot_samples_are_nested():
    small, large = few_shot(TARGETS, 5, 0, 5, val_shots=3), few_shot(TARGETS, 20, 0, 5, val_shots=3)
    assert set(small.train.tolist()) < set(large.train.tolist())
    assert torch.equal(small.val, large.val)


def test_few_shot_names_the_class_that_is_too_small():
    targets = torch.tensor([0] * 10 + [1] * 3)
    with pytest.raises(DataError, match=r"class 'rose' has 3 images, but 5 are needed: 3 shots .* \+ 2 for validation"):
        few_shot(targets, 3, 0, 2, val_shots=2, class_names=["aster", "rose"])
    with pytest.raises(DataError, match=r"class '2' has 0 images, but 4 are needed \(1 more such\)"):
        few_shot(targets, 4, 0, 3)


@pytest.mark.parametrize(
    ("size", "part", "text"),
    [
        (2, "train", "2 images, but 3 are needed; lower shots"),
        (1, "val", "1 images for validation, but 3 are needed; set val_shots to at most 1 (left out, it is as many as"),
        (0, "val", "0 images for validation, but 3 are needed; add some, or leave that part out to lend some for it"),
    ],
)
def test_what_lacks_is_said_of_the_part_that_lacks_it(size, part, text):
    with pytest.raises(DataError, match=re.escape(f"class 'aster' has {text}")):
        few_shot(torch.tensor([0] * size + [1] * 9), 3, 0, 2, part=part, class_names=["aster", "rose"])
    with pytest.raises(DataError, match=re.escape(f"there are {text}")):
        few_images(size, 3, 0, part=part)


@pytest.mark.parametrize(("shots", "val_shots"), [(0, 1), (-2, 0), (1, -1)])
def test_few_shot_refuses_senseless_shots(shots, val_shots):
    with pytest.raises(DataError, match=f"got {shots} and {val_shots}"):
        few_shot(TARGETS, shots, 0, 5, val_shots=val_shots)


def test_few_shot_with_several_labels_gives_every_class_its_shots():
    targets = (torch.rand(200, 6, generator=torch.Generator().manual_seed(0)) < 0.2).long()
    train, val = few_shot(targets, 4, 0, 6, val_shots=3)
    assert (targets[train].sum(dim=0) >= 4).all()
    assert (targets[val].sum(dim=0) >= 3).all()
    assert len(train) <= 24
    assert not set(train.tolist()) & set(val.tolist())


def test_set_apart_keeps_every_class_in_both_parts(untouched_rng):
    targets = torch.tensor([0] * 40 + [1] * 2 + [2])
    rest, apart = set_apart(targets, 0.25, 0)
    assert targets[apart].bincount(minlength=3).tolist() == [10, 1, 0]
    assert sorted([*rest.tolist(), *apart.tolist()]) == list(range(43))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_set_apart_keeps_every_label_of_several_in_both_parts(seed, fraction, untouched_rng):
    targets = torch.zeros(60, 7, dtype=torch.long)
    # The rarest labels are on two images each, which share one of them; some images have no label.
    for label, rows in enumerate(([0, 1], [1, 2], [3, 4], range(4, 9), range(5, 20), range(0, 40), range(30, 50))):
        targets[list(rows), label] = 1
    rest, apart = set_apart(targets, fraction, seed)
    for part in (rest, apart):
        assert (targets[part].sum(dim=0) > 0).all()
        assert (targets[part].sum(dim=1) == 0).any()
    assert abs(len(apart) - fraction * len(targets)) <= 4
    assert sorted([*rest.tolist(), *apart.tolist()]) == list(range(60))


@pytest.mark.parametrize("targets", [torch.arange(5), torch.eye(5, dtype=torch.long)])
def test_set_apart_leaves_no_part_empty(targets):
    assert [len(part) for part in set_apart(targets, 0.2, 0)] == [4, 1]


def test_random_subset_is_sorted_and_bounded():
    rows = random_subset(100, 10, 0)
    assert len(rows) == 10
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert random_subset(5, 10, 0).tolist() == random_subset(5, None, 0).tolist() == list(range(5))
