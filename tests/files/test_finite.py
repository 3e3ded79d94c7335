"""Numbers that are not finite are found, and named."""

from __future__ import annotations

import pytest
import torch

from vimlight.errors import ZooError
from vimlight.files.finite import check_finite, is_finite

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_one_number_that_is_not_finite_is_found(dtype, bad):
    values = torch.ones(3, 5, dtype=dtype)
    assert is_finite(values)
    values[1, 2] = bad
    assert not is_finite(values)
    text = "module 'a': 1 of 15 numbers in 'down' are NaN or infinite, as after a training that diverged; train it anew"
    with pytest.raises(ZooError, match=text):
        check_finite({"up": torch.ones(2), "down": values}, "module 'a'", ZooError)


@pytest.mark.parametrize("dtype", TYPES[:4], ids=str)
def test_numbers_whose_sum_is_not_finite_are(dtype):
    assert is_finite(torch.full((300,), torch.finfo(dtype).max, dtype=dtype))


@pytest.mark.parametrize("values", [torch.arange(3), torch.ones(2, dtype=torch.bool), torch.zeros(0)])
def test_what_cannot_be_infinite_is_finite(values):
    assert is_finite(values)
