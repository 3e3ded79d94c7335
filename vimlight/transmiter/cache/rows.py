"""Rows of logits, from a tensor or a cache: z-scores, checks, and reading in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vimlight.errors import DataError
from vimlight.transmiter.cache import LogitCache

__all__ = ["EPSILON", "LogitRows", "checked_z_score", "difference", "z_score"]

EPSILON = 1e-6


def z_score(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts and scales each row to mean 0 and standard deviation 1.

    Args:
        logits: `(N, M)`.

    Returns:
        The z-scores `(N, M)` and the scales that they were divided by, `(N, 1)`: the unbiased standard deviation, and a
        trifle so that a row of equal logits stays finite.
    """
    std, mean = torch.std_mean(logits, dim=-1, keepdim=True)
    scale = std + EPSILON
    return (logits - mean) / scale, scale


class LogitRows:
    """The rows of a tensor or of a cache, every view of every image or the first.

    Args:
        logits: `(N, M)`, or a cache.
        role: What they are, as messages say it, such as `"source"`.
        first_views: Whether only the first view of each image counts.

    Raises:
        DataError: If a tensor has other than two axes, or there are no rows.
    """

    def __init__(self, logits: Tensor | LogitCache, role: str, *, first_views: bool = False) -> None:
        self._logits = logits
        self._role = role
        self._first_views = first_views
        if isinstance(logits, Tensor) and logits.ndim != 2:
            raise DataError(f"the {role} logits must be (images, classes), got {tuple(logits.shape)}")
        if not len(self):
            raise DataError(f"the {role} logits have no rows")

    def __len__(self) -> int:
        """Returns the number of rows: images times views."""
        return len(self._logits) * self.num_views

    @property
    def num_views(self) -> int:
        """Number of views of each image."""
        several = isinstance(self._logits, LogitCache) and not self._first_views
        return self._logits.num_views if several else 1  # type: ignore[union-attr]  # a cache, then

    @property
    def num_logits(self) -> int:
        """Number of columns M."""
        logits = self._logits
        return logits.num_logits if isinstance(logits, LogitCache) else logits.shape[1]

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Yields all rows in order, `batch_size` at a time, `(n, M)`."""
        if isinstance(self._logits, LogitCache):
            return self._logits.batches(batch_size, views=0 if self._first_views else "all")
        return iter(self._logits.split(batch_size))

    def name(self, row: int) -> str:
        """Returns what a message calls a row."""
        if not isinstance(self._logits, LogitCache):
            return f"row {row} of the {self._role} logits"
        image, view = divmod(row, self.num_views)
        which = f"row {image} ({self._logits.ids[image]!r})" + (f", view {view}," if self.num_views > 1 else "")
        return f"{which} of the {self._role} cache {str(self._logits.path)!r}"


def checked_z_score(batch: Tensor, name: Callable[[int], str]) -> Tensor:
    """Returns the z-scores of a batch, several times faster than `z_score`.

    Args:
        batch: `(n, M)`.
        name: From a row of the batch to what a message calls it.

    Raises:
        DataError: If a logit is not finite or all logits of a row are equal; the text names the row.
    """
    width = batch.shape[1]
    # The kernel of layer normalisation makes one pass where a mean, a deviation and a quotient make four.
    scores, mean, inverse = torch.native_layer_norm(batch.float(), (width,), None, None, 0.0)
    unusable = ~torch.isfinite(inverse) | (inverse * (1 + mean.abs()) * EPSILON >= 1)
    if bool(unusable.any()):
        row = int(unusable.flatten().nonzero()[0])
        finite = bool(torch.isfinite(batch[row]).all())
        fault = f"all logits equal {float(batch[row, 0]):g}" if finite else "a logit is not finite"
        raise DataError(f"{name(row)}: {fault}; leave the image out")
    # That kernel divides by the biased deviation.
    return scores.mul_(1 / ((width / (width - 1)) ** 0.5 + EPSILON * inverse))


def difference(expected: Sequence[str], found: Sequence[str], limit: int = 10) -> str | None:
    """Says how the names of columns differ, or returns nothing if they do not.

    Args:
        expected: The names there should be.
        found: The names there are.
        limit: How many names to list at most.
    """
    if tuple(expected) == tuple(found):
        return None
    pairs = ((expected, set(found)), (found, set(expected)))
    missing, extra = ([name for name in names if name not in others] for names, others in pairs)
    if missing or extra:
        return f"missing {missing[:limit] or 'none'}, extra {extra[:limit] or 'none'}"
    column = next(column for column, name in enumerate(expected) if name != found[column])
    return f"another order: column {column} is {found[column]!r} instead of {expected[column]!r}"
