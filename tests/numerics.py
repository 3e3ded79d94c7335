"""What tests of numbers share, so that they hold on every processor: weights that keep values near 1, and one bar.

Kernels add in another order from one processor to the next. What that changes is a share of the largest values that
were added, however small the sum: so values must not explode, and differences are measured by the largest value.
"""

from __future__ import annotations

import torch


def shaken(module, amount=0.2, seed=None):
    """Moves every parameter of a module away from its start, and returns the module.

    What a matrix or a kernel adds to its output is `amount` times what comes in, whatever its size.

    Args:
        module: A plug-in, a head, or any other module.
        amount: How far.
        seed: Decides the change; the global random state if left out.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            inputs = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.add_(amount / inputs**0.5 * torch.randn(parameter.shape, generator=generator))
    return module


def assert_near(found, expected, tolerance=1e-5):
    """Fails if tensors differ by more than a share of the largest value, or of 1 if that is more."""
    scale = max([1.0, *expected.detach().abs().flatten().tolist()])
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)
