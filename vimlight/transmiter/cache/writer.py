"""Writing a cache part by part: by any number of processes, in as many runs as it takes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vimlight.errors import CacheError, DataError
from vimlight.files.arrays import ARRAY_FAULTS
from vimlight.files.atomic import publish, temporary, write_whole
from vimlight.transmiter.cache.assembly import assemble, check_entries, refuse_existing, stored
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import FORMAT, Manifest
from vimlight.transmiter.cache.names import encode_names
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["CacheWriter"]

_PLAN = "plan.json"


class CacheWriter:
    """Writes a cache part by part into a hidden directory beside it, which `finish` joins and renames.

    Several processes may write the parts of one cache, if they see one file system; a part that is there is never
    written again, so an interrupted run goes on where it stopped, even with another number of processes, and ends with
    the same bytes. The directory has a folder for each plan, named by its hash: the parts of runs with other settings
    never meet, even if they are started at the same moment.

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
        self.manifest = manifest.without_secrets().replace(rows=len(ids), files={})
        check_entries(self.manifest, ids, labels)
        self.part_rows = part_rows
        self._ids, self._labels, self._overwrite = ids, labels, overwrite
        self._settings = dict(settings or {})
        self._pending: list[Tensor] = []
        self._next: int | None = None
        plan = self._plan()
        self._runs = self.path.with_name(f".{self.path.name}.partial")
        self._partial = self._runs / _sha256(json.dumps(plan, sort_keys=True).encode())[:16]
        self._refuse_other_runs(plan)
        write_whole(self._partial / _PLAN, json.dumps(plan), overwrite=True)

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
            CacheError: If another process has finished the cache meanwhile, or it cannot be written.
            DataError: If the shape is another, or a row is not finite or says nothing.
        """
        rows = self.part_range(part)
        expected = (len(rows), *self.manifest.shape[1:])
        if tuple(values.shape) != expected:
            raise DataError(f"part {part} is {tuple(values.shape)}, expected {expected}")
        content = io.BytesIO()
        np.savez(content, rows=stored(self.manifest, values, rows.start, self._ids), part=part)
        try:
            with temporary(self._file(part), content.getvalue(), sync=False) as copy:
                publish(copy, self._file(part), overwrite=True)
        except FileNotFoundError:
            self._leave_nothing()
            raise self._overtaken() from None
        except OSError as error:
            raise CacheError(
                f"part {part} of cache {str(self.path)!r} cannot be written: {error.strerror}; "
                "the same command goes on from there"
            ) from error

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
            CacheError: If a part is missing or damaged, or another process has finished the cache meanwhile.
        """
        if not self._partial.is_dir():
            raise self._overtaken()
        missing = self.missing()
        if missing:
            self._leave_nothing()
            raise CacheError(
                f"{len(missing)} of {self.num_parts} parts of cache {str(self.path)!r} are not written, the first is "
                f"part {missing[0]}; do all processes see the same file system?"
            )
        blocks = map(self._read, range(self.num_parts))
        try:
            cache = assemble(self.path, self.manifest, blocks, self._ids, self._labels, head, self._overwrite)
        except CacheError:
            self._leave_nothing()
            raise
        self._clear()
        return cache

    def _leave_nothing(self) -> None:
        """Removes the parts of a cache that another process has finished, who cannot know of those written since."""
        if self.path.exists() and not self._overwrite:
            self._clear()

    def _clear(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        # Others may be at work in it.
        with suppress(OSError):
            self._runs.rmdir()

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
                if int(file["part"]) != part:
                    raise ValueError(f"it is part {int(file['part'])}")
        except FileNotFoundError:
            raise self._overtaken() from None
        except ARRAY_FAULTS as error:
            path.unlink(missing_ok=True)
            raise CacheError(f"part {part} was damaged and is removed ({error}); run it again") from error
        return rows

    def _overtaken(self) -> CacheError:
        return CacheError(f"cache {str(self.path)!r} was finished or removed by another process meanwhile")

    def _refuse_other_runs(self, plan: Mapping[str, Any]) -> None:
        """Refuses a name under which a run with other settings was interrupted, or is at work."""
        for part in self._runs.glob("*/part-*.npz"):
            if part.parent == self._partial:
                continue
            found = _read_plan(part.parent / _PLAN)
            other = [key for key in plan if plan[key] != found.get(key)]
            raise CacheError(
                f"{str(part.parent)!r} holds a run with other settings ({', '.join(other)}) that was interrupted or is "
                "at work; go on with those, take another name, or remove that directory"
            )

    def _plan(self) -> dict[str, Any]:
        text, _ = encode_names(self._ids)
        labels = b"" if self._labels is None else self._labels.numpy().tobytes()
        own = {"part_rows": self.part_rows, "ids": _sha256(text), "labels": _sha256(labels)}
        plan = {"format": FORMAT, **dataclasses.asdict(self.manifest), **self._settings, **own}
        content: dict[str, Any] = json.loads(json.dumps(plan))
        return content


def _read_plan(path: Path) -> dict[str, Any]:
    """Returns what a run writes; nothing where that cannot be read any more."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
