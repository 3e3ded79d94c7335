"""In which numbers the hardware here multiplies."""

from __future__ import annotations

import torch

__all__ = ["multiplies_in_bfloat16"]


def multiplies_in_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Tells whether a device has instructions for products in bfloat16, which is slower than float32 where it has none.

    Args:
        device: A GPU, or the processor.
    """
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
