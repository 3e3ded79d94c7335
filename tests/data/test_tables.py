from __future__ import annotations

import pytest
import torch

from vimlight.data import FileTable, Source, TensorTable
from vimlight.errors import DataError


def grey_table(count=6):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(count, 4, 5)
    return TensorTable(images, torch.arange(count) % 2, "grey")


def test_tensor_table_shows_grey_images_in_three_channels():
    table = grey_table()
    assert table.image(3).shape == (3, 4, 5)
    assert table.images([5, 1]).shape == (2, 3, 4, 5)
    assert table.images([5, 1])[:, :, 0, 0].tolist() == [[5, 5, 5], [1, 1, 1]]
    assert table.ids[2] == "grey/2"


def test_subset_of_subset_follows_the_rows():
    table = grey_table().subset([5, 3, 1]).subset([2, 0])
    assert table.uniform
    assert table.images([0, 1])[:, 0, 0, 0].tolist() == [1, 5]
    assert table.ids == ["grey/1", "grey/5"]
    assert table.targets.tolist() == [1, 1]


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 2, 4, 4, dtype=torch.uint8)])
def test_tensor_table_refuses_other_layouts(images):
    with pytest.raises(DataError, match=r"images of odd: expected uint8 \(N, 3 or 1, H, W\)"):
        TensorTable(images, torch.zeros(2), "odd")


def test_a_table_needs_a_target_for_each_image():
    with pytest.raises(DataError, match="3 targets for 2 images"):
        TensorTable(torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(3), "odd")


def test_corrupt_and_missing_files_are_named(corrupt, flowers):
    table = FileTable([corrupt, flowers / "gone.png"], torch.zeros(2), flowers)
    with pytest.raises(DataError, match=r"cannot read image .*rose/1.jpg: .*[Tt]runcated.*skip_corrupt"):
        table.image(0)
    with pytest.raises(DataError, match=r"cannot read image .*gone.png"):
        table.image(1)


def test_readable_leaves_corrupt_files_out_and_counts_them(corrupt, flowers):
    table = FileTable([flowers / "rose" / "0.png", corrupt], torch.zeros(2), flowers)
    with pytest.warns(UserWarning, match=r"skipped 1 of 2 images; the first: cannot read image .*rose/1.jpg"):
        assert table.readable().ids == ["rose/0.png"]


def test_other_backgrounds_are_other_images(flowers):
    files = FileTable([flowers / "rose" / "0.png"], torch.zeros(1), flowers)
    black = files.over("black").subset([0])
    assert (black.background, files.background) == ("black", "white")
    assert black.digest() != files.digest()
    assert black.over("white").digest() == files.subset([0]).digest() == files.digest()


def test_source_checks_targets_and_emptiness():
    table = grey_table()
    with pytest.raises(DataError, match="data set 'x', train: label 1 is not among the 1 classes"):
        Source("x", "classification", ("a",), table)
    with pytest.raises(DataError, match="data set 'x' has no image in its test part"):
        Source("x", "classification", ("a", "b"), table, test=table.subset([]))
