"""Every registered basis is orthogonal, at the start and after training, and is the map that its matrix says."""

from __future__ import annotations

import pytest
import torch

from vimlight.errors import ConfigError, UnknownNameError
from vimlight.transmiter.adapters.basis import BASES, FixedBasis, random_orthogonal

ALL = pytest.mark.parametrize("name", list(BASES))
SIZE = 24


def trained(name, steps=5, size=SIZE):
    """A basis after a few large steps towards nowhere in particular."""
    basis = BASES[name](size, 3)
    parameters = list(basis.parameters())
    generator = torch.Generator().manual_seed(0)
    rows, goal = torch.randn(2, 50, size, generator=generator).unbind()
    if parameters:
        optimizer = torch.optim.Adam(parameters, lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            (basis.project(rows) - goal).square().mean().backward()
            optimizer.step()
    return basis


@ALL
@pytest.mark.parametrize("size", [2, 3, SIZE, 100])
@pytest.mark.parametrize("steps", [0, 5])
def test_orthogonal_before_and_after_training(name, size, steps):
    matrix = trained(name, steps, size).matrix.detach()
    assert matrix.shape == (size, size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), rtol=0, atol=2e-5)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(size), rtol=0, atol=2e-5)


@ALL
def test_both_ways_are_products_with_the_matrix(name):
    basis, rows = trained(name), torch.randn(7, SIZE)
    matrix = basis.matrix
    torch.testing.assert_close(basis.project(rows), rows @ matrix.T, rtol=1e-4, atol=1e-5)
    for columns in (1, 5, SIZE):
        torch.testing.assert_close(basis.reconstruct(rows, columns), (rows @ matrix)[:, :columns], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(basis.reconstruct(basis.project(rows), SIZE), rows, rtol=1e-4, atol=1e-5)


@ALL
def test_the_seed_decides_the_basis_and_nothing_else_is_touched(name, untouched_rng):
    first, again, other = (BASES[name](SIZE, seed).matrix for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "identity")


def test_a_trained_basis_starts_at_the_fixed_one_and_moves():
    assert torch.equal(trained("learned", 0).matrix, BASES["fixed"](SIZE, 3).matrix)
    moved = trained("learned")
    assert (moved.matrix - BASES["fixed"](SIZE, 3).matrix).abs().max() > 0.05
    start = BASES["learned"](SIZE, 3)
    assert all(not torch.equal(p, q) for p, q in zip(moved.parameters(), start.parameters(), strict=True))


def test_random_matrices_prefer_no_direction():
    # The decomposition's own choice of signs would show as a mean of the diagonal away from zero.
    diagonals = torch.stack([random_orthogonal(8, seed).diagonal() for seed in range(200)])
    assert diagonals.mean().abs() < 4 * (1 / 8 / diagonals.numel()) ** 0.5


def test_a_basis_keeps_its_digits_in_mixed_precision():
    basis = trained("learned")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, core, _ = basis._rotation()
    assert core.dtype == torch.float32
    assert torch.equal(core, basis._rotation()[1])


def test_a_matrix_of_ones_own():
    matrix = random_orthogonal(6, 9)
    assert torch.equal(FixedBasis(6, 0, matrix).matrix, matrix)
    with pytest.raises(ConfigError, match=r"the basis is \(6, 6\), expected \(5, 5\)"):
        FixedBasis(5, 0, matrix)
    with pytest.raises(ConfigError, match="the basis is not orthogonal"):
        FixedBasis(6, 0, 1.01 * matrix)


def test_a_basis_from_outside_the_package():
    from vimlight.transmiter import TransMiter

    @BASES.register("reversed")
    class Reversed(BASES["identity"]):
        def project(self, rows):
            return rows.flip(1)

        def reconstruct(self, hidden, columns):
            return hidden.flip(1)[:, :columns]

    try:
        adapter = TransMiter(6, 2, basis="reversed")
        assert torch.equal(adapter.basis, torch.eye(6).flip(0))
    finally:
        del BASES._entries["reversed"]
    with pytest.raises(UnknownNameError, match="unknown basis 'fixd'; did you mean 'fixed'"):
        TransMiter(6, 2, basis="fixd")
