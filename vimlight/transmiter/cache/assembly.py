"""Checked rows, names and head into a directory that is whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vimlight.errors import CacheError, DataError
from vimlight.files.atomic import check_writable, publish_directory, temporary_directory
from vimlight.transmiter.cache.checks import (
    check_class_names,
    check_head,
    check_ids,
    check_labels,
    check_partitions,
    check_values,
)
from vimlight.transmiter.cache.files import CacheFiles
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import LABELS, MANIFEST, Manifest
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["assemble", "check_entries", "new_cache", "refuse_existing", "stored", "write_cache"]

_BLOCK = 4096


def write_cache(
    path: str | os.PathLike[str],
    *,
    logits: Tensor | None = None,
    features: Tensor | None = None,
    head: TextHead | None = None,
    class_names: Sequence[str],
    aux_names: Sequence[str] = (),
    labels: Tensor | None = None,
    ids: Sequence[str] | None = None,
    split: str,
    model: str,
    partitions: Mapping[str, Sequence[int]] | None = None,
    overwrite: bool = False,
    **entries: Any,
) -> LogitCache:
    """Writes a cache from memory.

    Args:
        path: The cache's directory, which must not exist yet.
        logits: `(N, M)`, or `(N, V, M)` for V views: bare logits, stored in float32.
        features: `(N, E)` or `(N, V, E)`: instead of logits, with a head; stored in float16, normalised.
        head: The text head of M classes.
        class_names: The C task classes, which are the first columns.
        aux_names: The auxiliary classes, which are the columns behind them.
        labels: `(N,)` int64 class indices.
        ids: N sample ids; the row numbers by default.
        split: The split, such as `"train"`.
        model: The model's name.
        partitions: Named sets of class indices, such as `{"base": [0, 1], "novel": [2]}`.
        overwrite: Whether a cache of that name is replaced.
        **entries: Further entries of the manifest, such as `weights`, `data` or `augmentation`.

    Returns:
        The cache, opened.

    Raises:
        CacheError: If the name is taken, or it cannot be written.
        DataError: If anything is not as it should be; the text names the row, the column or the class.
    """
    target = Path(path).expanduser()
    refuse_existing(target, overwrite)
    values = _three_axes(logits, features, head)
    names = [str(row) for row in range(len(values))] if ids is None else list(ids)
    entries["partitions"] = {name: [int(index) for index in classes] for name, classes in (partitions or {}).items()}
    manifest = _shaped(Manifest(model, split, tuple(class_names), tuple(aux_names), **entries), values, head)
    check_entries(manifest, names, labels)
    blocks = (stored(manifest, values[at : at + _BLOCK], at, names) for at in range(0, len(values), _BLOCK))
    return assemble(target, manifest, blocks, names, labels, head, overwrite)


def assemble(
    path: Path,
    manifest: Manifest,
    blocks: Iterable[NDArray[Any]],
    ids: Sequence[str],
    labels: Tensor | None,
    head: TextHead | None,
    overwrite: bool,
) -> LogitCache:
    """Writes the files of a cache from checked blocks of rows and gives it its name.

    Args:
        path: The cache's directory.
        manifest: The manifest but for scale, bias and files.
        blocks: The rows as they are stored, in order.
        ids: N sample ids.
        labels: `(N,)` int64, or none.
        head: The text head of a cache of features.
        overwrite: Whether a cache of that name is replaced.

    Raises:
        CacheError: If the name was taken meanwhile, or it cannot be written.
        DataError: If head and features do not fit together.
    """
    if head is not None:
        check_head(head, manifest.width or 0, manifest.num_logits)
        manifest = manifest.replace(scale=float(head.scale), bias=float(head.bias))
    with new_cache(path, overwrite) as files:
        files.stream(manifest.array, manifest.shape, manifest.dtype, blocks)
        if head is not None:
            files.array("head.npy", head.weights.numpy(force=True))
        if labels is not None:
            files.array(LABELS, labels.numpy(force=True).astype(np.int64))
        files.names(ids)
        files.manifest(manifest)
    return LogitCache.open(path)


@contextmanager
def new_cache(path: Path, overwrite: bool) -> Iterator[CacheFiles]:
    """Takes the files of a cache into a hidden directory, which gets the cache's name at the end.

    Args:
        path: The cache's directory.
        overwrite: Whether a cache of that name is replaced.

    Raises:
        CacheError: If the name was taken meanwhile, or it cannot be written.
    """
    try:
        with temporary_directory(path) as copy:
            yield CacheFiles(copy)
            publish_directory(copy, path, overwrite)
    except FileExistsError:
        raise CacheError(f"{str(path)!r} was written by another process meanwhile") from None
    except OSError as error:
        raise CacheError(f"cache {str(path)!r} cannot be written: {error.strerror}") from error


def refuse_existing(path: Path, overwrite: bool, option: str = "--overwrite") -> None:
    """Refuses a name that is taken; only a cache may be replaced.

    Args:
        path: Where a cache shall be written.
        overwrite: Whether a cache may be replaced.
        option: What says so on the command line.

    Raises:
        CacheError: If it is.
        ConfigError: If nothing can be written there.
    """
    if not path.exists():
        check_writable(path.parent)
        return
    if not overwrite:
        raise CacheError(f"{str(path)!r} exists; choose another directory or pass {option} (overwrite=True)")
    if not (path / MANIFEST).is_file():
        raise CacheError(f"{str(path)!r} is no logit cache and is not replaced")


def stored(manifest: Manifest, values: Tensor, first_row: int, ids: Sequence[str]) -> NDArray[Any]:
    """Checks a block of rows and returns it as it is stored: features normalised in float16, logits in float32.

    Raises:
        DataError: If a row is not finite or says nothing.
    """
    block = values.detach().float().cpu()
    what = "logits" if manifest.width is None else "features"
    check_values(block, what, first_row, ids)
    if manifest.width is not None:
        block = F.normalize(block, dim=2)
    array: NDArray[Any] = block.numpy().astype(manifest.dtype)
    return array


def check_entries(manifest: Manifest, ids: Sequence[str], labels: Tensor | None) -> None:
    """Checks what is known before the first row: names, partitions, ids and labels.

    Raises:
        DataError: If anything is not as it should be.
    """
    check_class_names(manifest.class_names, manifest.aux_names)
    check_partitions(manifest.partitions, manifest.num_classes)
    check_ids(ids)
    if len(ids) != manifest.rows:
        raise DataError(f"{len(ids)} ids for {manifest.rows} images")
    if labels is not None:
        check_labels(labels, len(ids), manifest.num_classes, ids)


def _shaped(manifest: Manifest, values: Tensor, head: TextHead | None) -> Manifest:
    if head is None and values.shape[2] != manifest.num_logits:
        raise DataError(f"the logits have {values.shape[2]} columns, but there are {manifest.num_logits} class names")
    width, dtype = (None, "float32") if head is None else (values.shape[2], "float16")
    return manifest.replace(rows=len(values), views=values.shape[1], width=width, dtype=dtype)


def _three_axes(logits: Tensor | None, features: Tensor | None, head: TextHead | None) -> Tensor:
    if (logits is None) == (features is None) or (features is None) != (head is None):
        raise DataError("give either logits, or features together with a head")
    values = logits if logits is not None else features
    assert values is not None
    if values.ndim not in (2, 3):
        raise DataError(f"expected an array of two axes, or three with views, got {tuple(values.shape)}")
    return values if values.ndim == 3 else values[:, None]
