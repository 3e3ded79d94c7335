"""Writing a cache part by part: by any number of processes, in as many runs as it takes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vimlight.errors import CacheError, DataError
from vimlight.files.atomic import publish, temporary
from vimlight.transmiter.cache.assembly import assemble, check_entries, refuse_existing, stored
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.names import encode_names
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["CacheWriter"]

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
        settings: What else must be the same when an interrupted run goes on, such as the batch size.
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
        settings: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).expanduser()
        refuse_existing(self.path, overwrite)
        self.manifest = manifest.replace(rows=len(ids), files={})
        check_entries(self.manifest, ids, labels)
        self.part_rows = part_rows
        self._ids, self._labels, self._overwrite = ids, labels, overwrite
        self._settings = dict(settings or {})
        self._pending: list[Tensor] = []
        self._next: int | None = None
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
        return min(self._next_part() * self.part_rows, self.manifest.rows) + sum(map(len, self._pending))

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

        Raises:
            DataError: As `put`, or if there are more rows than ids.
        """
        self._pending.append(values)
        while self._pending:
            part, block = self._next_part(), torch.cat(self._pending)
            if part == self.num_parts:
                raise DataError(f"{len(block)} rows more than the {self.manifest.rows} ids of {str(self.path)!r}")
            count = len(self.part_range(part))
            if len(block) < count:
                return
            self.put(part, block[:count])
            self._next, self._pending = part + 1, [block[count:]] if len(block) > count else []

    def finish(self, head: TextHead | None = None) -> LogitCache:
        """Joins the parts, gives the cache its name and removes what is left over.

        Args:
            head: The text head of a cache of features.

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
        cache = assemble(self.path, self.manifest, blocks, self._ids, self._labels, head, self._overwrite)
        shutil.rmtree(self._partial)
        return cache

    def _next_part(self) -> int:
        if self._next is None:
            self._next = next(iter(self.missing()), self.num_parts)
        return self._next

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
        untouched = len(self.missing()) == self.num_parts
        with temporary(path, json.dumps(plan).encode()) as copy:
            try:
                publish(copy, path, overwrite=untouched)
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
        plan = {**dataclasses.asdict(self.manifest), **self._settings, **own}
        content: dict[str, Any] = json.loads(json.dumps(plan))
        return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
