import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save

from vimlight.files.stored import Stored, StoredFile

KINDS = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(), (3, 2), (0, 4)])
def test_what_lies_in_a_file_becomes_the_same_tensor(dtype, shape):
    tensor = torch.arange(2, 2 + max(1, 3 * 2)).to(dtype)[: torch.Size(shape).numel()].reshape(shape)

    found = StoredFile(save({"x": tensor})).get_tensor("x")

    assert found.dtype == str(dtype)
    assert found.tensor().dtype == dtype
    assert found.tensor().shape == shape
    # Compared as bytes: not every type can be compared.
    assert found.tensor().reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def test_numbers_that_torch_does_not_have_are_refused():
    with pytest.raises(SafetensorError, match=r"torch .* has no numbers of type F6_E2M3"):
        Stored((4,), "F6_E2M3", bytearray(3)).tensor()
