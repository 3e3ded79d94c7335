"""Alignment: an adapter learnt on one model's logits is moved to another model's by a closed form.

Both models saw the same images. With W the basis of the adapter and Z_s, Z_t the z-scored logits of source and target,
the orthogonal Q that minimises `|Z_t W^T Q - Z_s W^T|^2 + beta |Q - I|^2` is the orthogonal factor of
`W Z_t^T Z_s W^T + beta I`, and the target's basis is `Q^T W`. Since W is square and orthogonal, the factor is
`W Q' W^T` with Q' that of `Z_t^T Z_s + beta I`: the basis need not touch a single row, and one pass over the logits
serves every basis, every beta and any number of targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from vimlight.errors import ConfigError, DataError
from vimlight.transmiter.adapters.transmiter import TransMiter
from vimlight.transmiter.cache import LogitCache, check_paired, is_one_of_views
from vimlight.transmiter.cache.rows import LogitRows, checked_z_score

__all__ = ["CrossMoments", "align", "align_all", "choose_beta", "cross_moments"]

BETA = 500.0
BETAS_PER_SAMPLE = tuple(10 ** (k / 2) for k in range(-1, 6))
BATCH_SIZE = 4096
# Rows per matrix product. Not the batch size: so the result is the same for every batch size, bit for bit.
_BLOCK = 4096
_EVERY = 5

Logits = Tensor | LogitCache
Progress = Callable[[Iterable[Tensor]], Iterable[Tensor]]


class CrossMoments:
    """What the alignment of one target needs to know of the logits: `Z_t^T Z_s`, summed over paired z-scored rows.

    Args:
        num_logits: Number of columns M.
        device: Where they are summed.

    Attributes:
        total: `(M, M)` float64.
        count: Number of rows.
    """

    def __init__(self, num_logits: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(num_logits, num_logits, dtype=torch.float64, device=device)
        self.count = 0

    def add(self, source: Tensor, target: Tensor) -> None:
        """Adds paired z-scored rows `(n, M)`."""
        if source.is_cuda and torch.get_float32_matmul_precision() != "highest":
            # Three digits are too few for a sum over all images.
            source, target = source.double(), target.double()
        self.total += target.T @ source
        self.count += len(source)

    def rotation(self, beta: float = BETA, beta_per_sample: float | None = None) -> Tensor:
        """Returns the orthogonal matrix that turns z-scored rows of the target into rows like the source's.

        Args:
            beta: Pull towards no rotation, in the units of the sum over all rows.
            beta_per_sample: The same per row, so that it means the same for any number of rows; wins over `beta`.

        Returns:
            `(M, M)` float64; rows are multiplied from the left.

        Raises:
            ConfigError: If it is negative, or so small that the rows leave the rotation open.
        """
        pull = beta if beta_per_sample is None else beta_per_sample * self.count
        if pull < 0:
            raise ConfigError(f"beta must be at least 0, got {beta if beta_per_sample is None else beta_per_sample}")
        unit = torch.eye(len(self.total), dtype=torch.float64, device=self.total.device)
        try:
            left, _, right = torch.linalg.svd(self.total + pull * unit)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # documented, but not in the stubs
            raise ConfigError(
                f"{self.count} rows do not decide a rotation of {len(unit)} columns at a pull of {pull:g}; raise beta"
            ) from None
        rotation: Tensor = left @ right
        return rotation

    def agreement(self, rotation: Tensor | None = None) -> float:
        """Returns the mean cosine between rows of the source and rows of the target.

        Args:
            rotation: What the target's rows are multiplied by first; nothing by default.
        """
        # A z-scored row has the squared length M - 1.
        trace = self.total.trace() if rotation is None else (self.total * rotation).sum()
        return float(trace / (self.count * (len(self.total) - 1)))


def align(
    adapter: TransMiter,
    source: Logits,
    target: Logits,
    beta: float = BETA,
    beta_per_sample: float | None = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> TransMiter:
    """Moves an adapter from one model to another, without labels and without backpropagation.

    Args:
        adapter: The adapter, learnt or moved to the source model earlier.
        source: Zero-shot logits `(N, M)` of the adapter's model, or a cache of them.
        target: Zero-shot logits of the new model on the same images in the same order, or a cache of them.
        beta: Pull towards no change of basis. Moments are summed over images and views, so what it means depends on
            their number.
        beta_per_sample: The same per image and view, so that it means the same for any number; wins over `beta`.
        batch_size: Rows that are read at a time; the result does not depend on it.

    Returns:
        An adapter with the same MLP and the target's basis.

    Raises:
        ConfigError: If beta is negative or the adapter takes other than M logits.
        AdapterError: If the source's cache is of another model or of other classes than the adapter.
        CacheError: If two caches show other images or classes.
        DataError: If a row is not finite or all its logits are equal, or the tensors do not fit together.
    """
    return align_all(adapter, source, [target], beta, beta_per_sample, batch_size=batch_size)[0]


@torch.no_grad()
def choose_beta(
    source: Logits, target: Logits, candidates: Sequence[float] = BETAS_PER_SAMPLE, *, batch_size: int = BATCH_SIZE
) -> float:
    """Chooses the pull by how well images agree that the rotation was not made from: every fifth, with all its views.

    Args:
        source: Zero-shot logits `(N, M)` of the adapter's model, or a cache of them.
        target: The target's logits of the same images.
        candidates: What to choose from, per image and view; one SVD each.
        batch_size: Rows that are read at a time; the result does not depend on it.

    Returns:
        The `beta_per_sample` for `align`.

    Raises:
        CacheError: If two caches show other images or classes.
        DataError: If there are fewer than two images, or as in `cross_moments`.
    """
    rows = _paired_rows(source, [target], first_views=_has_one_of_views(source, target))
    views = rows[0].num_views
    if len(rows[0]) < 2 * views:
        raise DataError(f"a choice of beta needs at least 2 images, got {len(rows[0]) // views}")
    used, left_out = CrossMoments(rows[0].num_logits), CrossMoments(rows[0].num_logits)
    row = 0
    for first, second in _blocks(rows, batch_size, "cpu", iter):
        apart = torch.arange(row, row + len(first)) // views % _EVERY == 0
        left_out.add(first[apart], second[apart])
        used.add(first[~apart], second[~apart])
        row += len(first)
    return max(candidates, key=lambda beta: left_out.agreement(used.rotation(beta_per_sample=beta)))


@torch.no_grad()
def align_all(
    adapter: TransMiter,
    source: Logits,
    targets: Sequence[Logits],
    beta: float = BETA,
    beta_per_sample: float | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    progress: Progress = iter,
) -> list[TransMiter]:
    """Moves an adapter to several models in one pass over the source's logits; see `align`.

    Args:
        adapter: The adapter.
        source: Logits of its model.
        targets: Logits of the new models.
        beta: Pull towards no change of basis.
        beta_per_sample: The same per image and view.
        batch_size: Rows that are read at a time.
        progress: Wrapped around the batches of the source, to show a progress bar.

    Returns:
        One adapter for each target.

    Raises:
        ConfigError: As `align`.
        AdapterError: As `align`.
        CacheError: As `align`.
        DataError: As `align`.
    """
    if isinstance(source, LogitCache):
        adapter.check_cache(source)
    else:
        adapter.check_width(source)
    device = adapter.projection.anchor.device
    moments = cross_moments(source, targets, batch_size=batch_size, device=device, progress=progress)
    return [
        _moved(adapter, source, target, found, beta, beta_per_sample)
        for target, found in zip(targets, moments, strict=True)
    ]


@torch.no_grad()
def cross_moments(
    source: Logits,
    targets: Sequence[Logits],
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> list[CrossMoments]:
    """Sums the moments of paired rows in one pass; memory does not grow with their number.

    Args:
        source: `(N, M)`, or a cache.
        targets: The same of each target.
        batch_size: Rows that are read at a time.
        device: Where they are summed.
        progress: Wrapped around the batches of the source, to show a progress bar.

    Returns:
        The moments of each target.

    Raises:
        CacheError: If two caches show other images or classes.
        DataError: If a row is not finite or all its logits are equal, or the tensors do not fit together.
    """
    found: dict[int, CrossMoments] = {}
    for first_views in (False, True):
        places = [n for n, target in enumerate(targets) if _has_one_of_views(source, target) == first_views]
        if not places:
            continue
        rows = _paired_rows(source, [targets[n] for n in places], first_views=first_views)
        found |= {n: CrossMoments(rows[0].num_logits, device) for n in places}
        for block in _blocks(rows, batch_size, device, progress):
            for n, target in zip(places, block[1:], strict=True):
                found[n].add(block[0], target)
    return [found[n] for n in range(len(targets))]


def _blocks(
    rows: Sequence[LogitRows], batch_size: int, device: torch.device | str, progress: Progress
) -> Iterator[list[Tensor]]:
    """Yields z-scored rows of all models side by side, `_BLOCK` at a time, whatever the size of the batches."""
    size = min(_BLOCK, len(rows[0]))
    buffers = [torch.empty(size, rows[0].num_logits, device=device) for _ in rows]
    filled = done = 0
    readers = [progress(rows[0].batches(batch_size)), *(side.batches(batch_size) for side in rows[1:])]
    for batches in zip(*readers, strict=True):
        count = len(batches[0])
        names = [partial(_name, side, done) for side in rows]
        scores = [checked_z_score(batch.to(device), name) for batch, name in zip(batches, names, strict=True)]
        taken = 0
        while taken < count:
            step = min(size - filled, count - taken)
            for buffer, score in zip(buffers, scores, strict=True):
                buffer[filled : filled + step] = score[taken : taken + step]
            filled, taken = (filled + step) % size, taken + step
            if filled == 0:
                yield buffers
        done += count
    if filled:
        yield [buffer[:filled] for buffer in buffers]


def _name(rows: LogitRows, first_row: int, row: int) -> str:
    return rows.name(first_row + row)


def _has_one_of_views(source: Logits, target: Logits) -> bool:
    return isinstance(source, LogitCache) and isinstance(target, LogitCache) and is_one_of_views(source, target)


def _paired_rows(source: Logits, targets: Sequence[Logits], *, first_views: bool) -> list[LogitRows]:
    """Returns the rows of the source and of each target, which belong together."""
    rows = LogitRows(source, "source", first_views=first_views)
    others = [LogitRows(target, "target", first_views=first_views) for target in targets]
    for target, other in zip(targets, others, strict=True):
        _check_pair(source, target, rows, other)
    return [rows, *others]


def _check_pair(source: Logits, target: Logits, first: LogitRows, second: LogitRows) -> None:
    if isinstance(source, LogitCache) and isinstance(target, LogitCache):
        check_paired(source, target, one_of_views=True)
    elif len(first) != len(second) or first.num_logits != second.num_logits:
        shapes = [(len(rows), rows.num_logits) for rows in (first, second)]
        raise DataError(f"the source logits are {shapes[0]}, the target logits {shapes[1]}; they must be paired rows")


def _moved(
    adapter: TransMiter,
    source: Logits,
    target: Logits,
    moments: CrossMoments,
    beta: float,
    beta_per_sample: float | None,
) -> TransMiter:
    rotation = moments.rotation(beta, beta_per_sample)
    moved = adapter.with_basis((adapter.basis.double() @ rotation.T).float())
    pull = {"beta": beta} if beta_per_sample is None else {"beta_per_sample": beta_per_sample}
    agreement = {"before": moments.agreement(), "after": moments.agreement(rotation)}
    caches = {
        role: {"model": logits.model, "hash": logits.hash}
        for role, logits in (("source", source), ("target", target))
        if isinstance(logits, LogitCache)
    }
    history = adapter.card.after("transfer", rows=moments.count, **pull, agreement=agreement, caches=caches)
    facts = {"model": target.model} if isinstance(target, LogitCache) else {"model": ""}
    return moved.describe(history=history, **facts)
