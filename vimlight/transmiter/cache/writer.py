"""Writing a cache: in one go from memory, or part by part, by any number of processes, in as many runs as it takes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vimlight.atomic import publish, publish_directory, temporary, temporary_directory
from vimlight.errors import CacheError, DataError
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
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.names import encode_names
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["CacheWriter", "refuse_existing", "write_cache"]

_PLAN = "plan.json"


class CacheWriter:
    """Writes a cache part by part into a hidden directory beside it, which `finish` joins and renames.

    Several processes may write the parts of one cache, if they see one file system; a part that is there is never
    written again, so an interrupted run goes on where it stopped, even with another number of processes, and ends with
    the same bytes.

    Args:
        path: The cache's directory, which must not exist yet.
        manifest: What is known beforehand; rows, files and head are filled in.
        ids: N sample ids.
        labels: `(N,)` int64 class indices, or none.
        part_rows: Images in a part.
        overwrite: Whether a cache of that name is replaced at the end.

    Raises:
        CacheError: If the name is taken, or an interrupted run had other settings.
        DataError: If names, ids, labels or partitions are not as they should be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        manifest: Manifest,
        *,
        ids: Sequence[str],
        labels: Tensor | None = None,
        part_rows: int = 256,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).expanduser()
        refuse_existing(self.path, overwrite)
        self.manifest = manifest.replace(rows=len(ids), files={})
        _check(self.manifest, ids, labels)
        self.part_rows = part_rows
        self._ids, self._labels, self._overwrite = ids, labels, overwrite
        self._pending: list[Tensor] = []
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._partial.mkdir(parents=True, exist_ok=True)
        self._agree_on_plan()

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return -(-self.manifest.rows // self.part_rows)

    @property
    def position(self) -> int:
        """The first row that is not written yet; `append` goes on from there."""
        missing = self.missing()
        rows = self.part_range(missing[0]).start if missing else self.manifest.rows
        return rows + sum(map(len, self._pending))

    def missing(self) -> list[int]:
        """Lists the parts that are not written yet."""
        return [part for part in range(self.num_parts) if not self._file(part).is_file()]

    def part_range(self, part: int) -> range:
        """Returns the rows of a part."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.manifest.rows))

    def put(self, part: int, values: Tensor) -> None:
        """Writes one part.

        Args:
            part: Its number.
            values: `(n, V, E)` features, which are normalised and rounded here, or `(n, V, M)` logits.

        Raises:
            DataError: If the shape is another, or a row is not finite or says nothing.
        """
        rows = self.part_range(part)
        expected = (len(rows), *self.manifest.shape[1:])
        if tuple(values.shape) != expected:
            raise DataError(f"part {part} is {tuple(values.shape)}, expected {expected}")
        content = io.BytesIO()
        np.savez(content, rows=stored(self.manifest, values, rows.start, self._ids))
        with temporary(self._file(part), content.getvalue(), sync=False) as copy:
            publish(copy, self._file(part), overwrite=True)

    def append(self, values: Tensor) -> None:
        """Writes the rows that follow on those written so far.

        Args:
            values: `(n, V, E)` features or `(n, V, M)` logits; any n.
        """
        position = self.position
        self._pending.append(values)
        while self._pending:
            part = (position - sum(map(len, self._pending[:-1]))) // self.part_rows
            rows, block = self.part_range(part), torch.cat(self._pending)
            if len(block) < len(rows):
                return
            self.put(part, block[: len(rows)])
            self._pending = [block[len(rows) :]] if len(block) > len(rows) else []
            position = rows.stop

    def finish(self, head: TextHead | None = None, **changes: Any) -> LogitCache:
        """Joins the parts, gives the cache its name and removes what is left over.

        Args:
            head: The text head of a cache of features.
            **changes: Entries of the manifest that are known only now, such as `aux_names`.

        Raises:
            CacheError: If a part is missing or damaged.
        """
        missing = self.missing()
        if missing:
            raise CacheError(
                f"{len(missing)} of {self.num_parts} parts of cache {str(self.path)!r} are not written, the first is "
                f"part {missing[0]}; do all processes see the same file system?"
            )
        blocks = map(self._read, range(self.num_parts))
        manifest = self.manifest.replace(**changes)
        cache = assemble(self.path, manifest, blocks, self._ids, self._labels, head, self._overwrite)
        shutil.rmtree(self._partial)
        return cache

    def _file(self, part: int) -> Path:
        return self._partial / f"part-{part:08d}.npz"

    def _read(self, part: int) -> NDArray[Any]:
        path = self._file(part)
        try:
            with np.load(path, allow_pickle=False) as file:
                rows: NDArray[Any] = file["rows"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            path.unlink(missing_ok=True)
            raise CacheError(f"part {part} was damaged and is removed ({error}); run it again") from error
        return rows

    def _agree_on_plan(self) -> None:
        """Writes down what is being built, or checks that it is what another process or an earlier run builds."""
        plan, path = self._plan(), self._partial / _PLAN
        with temporary(path, json.dumps(plan).encode()) as copy:
            try:
                publish(copy, path, overwrite=False)
            except FileExistsError:
                found = json.loads(path.read_text())
                other = [key for key in plan if plan[key] != found.get(key)]
                if other:
                    raise CacheError(
                        f"{str(self._partial)!r} holds an interrupted run with other settings ({', '.join(other)}); "
                        "go on with those, or remove that directory"
                    ) from None

    def _plan(self) -> dict[str, Any]:
        text, _ = encode_names(self._ids)
        labels = b"" if self._labels is None else self._labels.numpy().tobytes()
        own = {"part_rows": self.part_rows, "ids": _sha256(text), "labels": _sha256(labels)}
        plan = {**dataclasses.asdict(self.manifest), **own}
        content: dict[str, Any] = json.loads(json.dumps(plan))
        return content


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
        CacheError: If the name is taken.
        DataError: If anything is not as it should be; the text names the row, the column or the class.
    """
    values = _three_axes(logits, features, head)
    names = [str(row) for row in range(len(values))] if ids is None else list(ids)
    manifest = Manifest(
        model=model,
        split=split,
        class_names=tuple(class_names),
        aux_names=tuple(aux_names),
        rows=len(values),
        views=values.shape[1],
        width=values.shape[2] if head is not None else None,
        dtype="float32" if head is None else "float16",
        partitions={name: [int(index) for index in classes] for name, classes in (partitions or {}).items()},
        **entries,
    )
    if len(names) != len(values):
        raise DataError(f"{len(names)} ids for {len(values)} images")
    if head is None and values.shape[2] != manifest.num_logits:
        raise DataError(f"the logits have {values.shape[2]} columns, but there are {manifest.num_logits} class names")
    refuse_existing(Path(path).expanduser(), overwrite)
    _check(manifest, names, labels)
    blocks = (stored(manifest, values[at : at + 4096], at, names) for at in range(0, len(values), 4096))
    return assemble(Path(path).expanduser(), manifest, blocks, names, labels, head, overwrite)


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
        CacheError: If the name was taken meanwhile.
        DataError: If head and features do not fit together.
    """
    if head is not None:
        check_head(head, manifest.width or 0, manifest.num_logits)
        manifest = manifest.replace(scale=float(head.scale), bias=float(head.bias))
    with temporary_directory(path) as copy:
        files = CacheFiles(copy)
        files.stream(manifest.array, manifest.shape, manifest.dtype, blocks)
        if head is not None:
            files.array("head.npy", head.weights.numpy(force=True))
        if labels is not None:
            files.array("labels.npy", labels.numpy(force=True).astype(np.int64))
        files.names(ids)
        files.manifest(manifest)
        publish_cache(copy, path, overwrite)
    return LogitCache.open(path)


def publish_cache(copy: Path, path: Path, overwrite: bool) -> None:
    """Gives a finished directory the cache's name.

    Raises:
        CacheError: If the name was taken meanwhile.
    """
    try:
        publish_directory(copy, path, overwrite)
    except FileExistsError:
        raise CacheError(f"{str(path)!r} was written by another process meanwhile") from None


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuses a name that is taken; only a cache may be replaced.

    Raises:
        CacheError: If it is.
    """
    if not path.exists():
        return
    if not overwrite:
        raise CacheError(f"{str(path)!r} exists; choose another directory or pass --overwrite (overwrite=True)")
    if not (path / "manifest.json").is_file():
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


def _check(manifest: Manifest, ids: Sequence[str], labels: Tensor | None) -> None:
    check_class_names(manifest.class_names, manifest.aux_names)
    check_partitions(manifest.partitions, manifest.num_classes)
    check_ids(ids)
    if labels is not None:
        check_labels(labels, len(ids), manifest.num_classes, ids)


def _three_axes(logits: Tensor | None, features: Tensor | None, head: TextHead | None) -> Tensor:
    if (logits is None) == (features is None) or (features is None) != (head is None):
        raise DataError("give either logits, or features together with a head")
    values = logits if logits is not None else features
    assert values is not None
    if values.ndim not in (2, 3):
        raise DataError(f"expected an array of two axes, or three with views, got {tuple(values.shape)}")
    return values if values.ndim == 3 else values[:, None]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
