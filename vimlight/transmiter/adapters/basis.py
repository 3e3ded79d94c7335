"""Bases: orthogonal maps from z-scored logits to the space in which an adapter works, and back.

A basis W is `(D, M)` with D = M. A new one is a class with the decorator of the registry.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from vimlight.errors import ConfigError
from vimlight.registry import Registry

__all__ = ["BASES", "Basis", "FixedBasis", "IdentityBasis", "LearnedBasis", "random_orthogonal"]

_TOLERANCE = 1e-3
_RANK = 32


class Basis(nn.Module):
    """An orthogonal map.

    Args:
        size: D = M.
        seed: Decides whatever is drawn.
    """

    anchor: Tensor

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.size = size
        # Knows device and type where a basis has no tensors.
        self.register_buffer("anchor", torch.empty(0), persistent=False)

    @property
    def matrix(self) -> Tensor:
        """W, `(D, M)`."""
        return self.project(torch.eye(self.size, device=self.anchor.device, dtype=self.anchor.dtype)).T

    @abstractmethod
    def project(self, rows: Tensor) -> Tensor:
        """Returns `rows @ W.T`, `(N, D)`, of rows `(N, M)`."""

    @abstractmethod
    def reconstruct(self, hidden: Tensor, columns: int) -> Tensor:
        """Returns the first `columns` columns of `hidden @ W`, `(N, columns)`, of hidden `(N, D)`."""


BASES: Registry[type[Basis]] = Registry("basis", __name__, "BASES")


@BASES.register("fixed")
class FixedBasis(Basis):
    """A matrix that is not trained: random orthogonal, or a given one.

    Args:
        size: D = M.
        seed: Decides the matrix.
        weight: `(D, M)`: the matrix, if it is not to be drawn.

    Raises:
        ConfigError: If the given matrix is not orthogonal or of another size.
    """

    weight: Tensor

    def __init__(self, size: int, seed: int, weight: Tensor | None = None) -> None:
        super().__init__(size, seed)
        if weight is None:
            weight = random_orthogonal(size, seed)
        elif weight.shape != (size, size):
            raise ConfigError(f"the basis is {tuple(weight.shape)}, expected ({size}, {size})")
        elif not is_orthogonal(weight):
            raise ConfigError("the basis is not orthogonal: its product with its transpose is not the identity")
        self.register_buffer("weight", weight.detach().clone())

    @property
    def matrix(self) -> Tensor:
        """W, `(D, M)`."""
        return self.weight

    def project(self, rows: Tensor) -> Tensor:
        """Returns `rows @ W.T`."""
        return rows @ self.weight.T

    def reconstruct(self, hidden: Tensor, columns: int) -> Tensor:
        """Returns the first columns of `hidden @ W`."""
        return hidden @ self.weight[:, :columns]


@BASES.register("identity")
class IdentityBasis(Basis):
    """No change of basis: the adapter works on the z-scored logits themselves."""

    def project(self, rows: Tensor) -> Tensor:
        """Returns the rows."""
        return rows

    def reconstruct(self, hidden: Tensor, columns: int) -> Tensor:
        """Returns the first columns."""
        return hidden[:, :columns]


@BASES.register("learned")
class LearnedBasis(Basis):
    """A random orthogonal matrix, turned by a trained rotation; it starts where `fixed` with the same seed stays.

    The rotation is the Cayley map of a skew matrix of low rank, `A = U^T V - V^T U` with r rows in U and in V. With
    `P = [U^T, V^T]` and `Q = [V^T, -U^T]` it is `I + P (I - Q^T P / 2)^-1 Q^T`: no D x D matrix is formed or inverted,
    and a batch of N rows costs 4 N D r multiply-adds each way, which is 12 % of the product with a D x D matrix at
    D = 1,024 and r = 32, where an inverse of that size costs as much as 1,000 rows.
    """

    start: Tensor

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self.register_buffer("start", random_orthogonal(size, seed))
        rank = max(1, min(_RANK, size // 2))
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.zeros(rank, size))
        self.second = nn.Parameter(torch.randn(rank, size, generator=generator) * size**-0.5)

    def project(self, rows: Tensor) -> Tensor:
        """Returns `rows @ W.T`."""
        left, core, right = self._rotation()
        hidden = rows @ self.start.T
        return hidden + (hidden @ right) @ core.T @ left.T

    def reconstruct(self, hidden: Tensor, columns: int) -> Tensor:
        """Returns the first columns of `hidden @ W`."""
        left, core, right = self._rotation()
        return (hidden + (hidden @ left) @ core @ right.T) @ self.start[:, :columns]

    def _rotation(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns P `(D, 2r)`, the inverse `(2r, 2r)` and Q `(D, 2r)`."""
        left = torch.cat([self.first, self.second]).T
        right = torch.cat([self.second, -self.first]).T
        # In half precision the map would be orthogonal to two digits only.
        with torch.autocast(left.device.type, enabled=False):
            unit = torch.eye(left.shape[1], dtype=left.dtype, device=left.device)
            core = torch.linalg.inv(unit - 0.5 * right.T @ left)
        return left, core, right


def random_orthogonal(size: int, seed: int) -> Tensor:
    """Draws an orthogonal matrix `(size, size)`, float32, uniformly over all of them."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    # Signs are the decomposition's choice, unless one makes it.
    matrix: Tensor = (q * r.diagonal().sign()).float().contiguous()
    return matrix


def is_orthogonal(matrix: Tensor) -> bool:
    """Tells whether a square matrix is orthogonal to three digits."""
    unit = torch.eye(len(matrix), device=matrix.device)
    return bool((matrix.float() @ matrix.float().T - unit).abs().max() < _TOLERANCE)
