"""Predictions as files: a table with one row an image and, for what is no row of numbers, one file an image."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import lightning.pytorch as pl
import torch.distributed
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch.utils._pytree import tree_leaves

from vimlight.data import ImageDataModule
from vimlight.errors import ConfigError, DataError, unknown_name
from vimlight.files.atomic import publish_directory
from vimlight.files.finite import is_finite
from vimlight.files.leftovers import hidden
from vimlight.report.files import refuse_existing, write_whole
from vimlight.report.predicted_parts import PredictedParts, plan_of
from vimlight.tasks import Task
from vimlight.training.base import SupervisedModule

__all__ = ["PredictionWriter", "check_numbers"]

Columns = Mapping[str, Sequence[Any]]
_WAY = "--predictions.overwrite true (overwrite=True)"
# Position in the data (loader, image), and the rows of the image: values by column.
_Row = tuple[tuple[int, int], list[dict[str, Any]]]


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` returns: the column `id`, and those that the task says; see `Task.table`.

    Classifications have `label` and a column `p_CLASS` of probabilities for each class. Where the data are labelled,
    `true` says the target as `label` says the prediction; it is blank for an image without one. The objects of a
    detection task have rows of their own, those of COCO's results format, without it. Where a prediction is a file of
    its own, such as a mask, the column `file` names it: files lie in a folder beside the table, which has its name
    without the suffix, under the names of their images.

    Rows come in the order of the data, each image once, from however many processes. The suffix of the path decides the
    format: `.csv`, `.json` (a list of objects) or `.parquet`. Table and folder appear whole or not at all.

    Over all images of a data module of this package, the same run given again goes on where one was ended, with the
    same rows in the end: until then they lie in a hidden directory beside the table; see `PredictedParts`. The last
    line of a classification says how many labels are the true ones: a test that can be interrupted.

    Args:
        path: Where to write the table.
        overwrite: Whether existing files are replaced.

    Raises:
        UnknownNameError: If the suffix is none of these.
    """

    def __init__(self, path: str = "predictions.csv", *, overwrite: bool = False) -> None:
        super().__init__(write_interval="batch_and_epoch")
        self.path = Path(path)
        self.overwrite = overwrite
        if self.path.suffix not in _FORMATS:
            raise unknown_name("suffix of a predictions file", self.path.suffix, _FORMATS)
        self.folder = self.path.with_suffix("")
        self._staging = hidden(self.folder)
        self._parts: PredictedParts | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks before any work that the files can be written.

        Raises:
            ConfigError: If one exists and may not be replaced, the model has no task, or pyarrow is missing.
        """
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        refuse_existing(self.path, self.overwrite, _WAY)
        if _writes_files(_task(pl_module)):
            if self.folder.exists() and not (self.overwrite and self.folder.is_dir()):
                raise ConfigError(f"{str(self.folder)!r} exists; choose another path or pass {_WAY}")
            # One name for all processes, and no other run's.
            self._staging = trainer.strategy.broadcast(self._staging)
        if self.path.suffix == ".parquet":
            _import_pyarrow()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks for what an interrupted run has left."""
        data = _resumable(trainer)
        if data is None or not isinstance(pl_module, SupervisedModule):
            return
        self._parts = PredictedParts(self.path, plan_of(trainer, pl_module, data))
        self._staging, data.predicted = self._parts.files, frozenset(self._parts.rows)
        if data.predicted:
            count = f"{len(data.predicted):,} of {len(data.predict_table):,} images"
            rank_zero_info(f"goes on with an interrupted run, which has predicted {count}")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Turns a batch of predictions into rows; what is written to files is not kept in memory.

        Args:
            trainer: The trainer.
            pl_module: The model.
            prediction: What `predict_step` returned.
            batch_indices: Rows of the data that the batch came from.
            batch: The batch.
            batch_idx: Its number.
            dataloader_idx: Number of the loader.

        Raises:
            ConfigError: If a file cannot be written.
            DataError: If a prediction is not finite.
        """
        task, ids = _task(pl_module), [str(name) for name in prediction["id"]]
        # Predictions for what was cached of images do not lie in an image.
        given = prediction["size"].tolist() if "size" in prediction else [(0, 0)] * len(ids)
        sizes = [(int(height), int(width)) for height, width in given]
        items = prediction.pop("prediction")
        check_numbers(ids, items)
        prediction["rows"] = task.rows(ids, items, sizes) if ids else []
        for rows, truth in zip(prediction["rows"], _truth(task, trainer, batch), strict=False):
            # The objects of an image have rows of their own, and no order in common with the true ones.
            if type(task).rows is Task.rows:
                rows[:] = [{"id": row.pop("id"), "true": truth, **row} for row in rows]
        if _writes_files(task):
            for name, item, size, rows in zip(ids, items, sizes, prediction["rows"], strict=True):
                file = self._write(task, name, item, size)
                for row in rows:
                    row["file"] = file
        if self._parts is not None:
            self._parts.add(batch_indices or (), prediction["rows"])

    def _write(self, task: Task, name: str, item: Any, size: tuple[int, int]) -> str:
        suffix, content = task.file(item, size) or ("", b"")
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
        place = PurePosixPath(*parts).with_suffix(suffix)
        path = self._staging / place
        with self._said():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return f"{self.folder.name}/{place}"

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gathers the rows of all processes and writes them.

        Args:
            trainer: The trainer.
            pl_module: The model.
            predictions: What `predict_step` returned, batch by batch.
            batch_indices: Rows of the data that each batch came from, for each loader.

        Raises:
            ConfigError: If they cannot be written.
            DataError: If two images would write one file.
        """
        loaders = (
            [predictions] if trainer.num_predict_batches and len(trainer.num_predict_batches) == 1 else predictions
        )
        rows = [
            row
            for loader, batches in enumerate(loaders)
            for row in _rows(loader, batches, batch_indices[loader], trainer.global_rank, trainer.world_size)
        ]
        found = dict(_gather(rows, trainer))
        if not trainer.is_global_zero:
            return
        columns = _columns(found | self._earlier())
        _check_files(columns)
        content = _FORMATS[self.path.suffix](columns)
        if self._staging.is_dir():
            self._publish_files()
        write_whole(self.path, content, overwrite=self.overwrite)
        if self._parts is not None:
            self._parts.remove()
        if _task(pl_module).monitor == "accuracy" and (said := _accuracy(columns)):
            rank_zero_info(said)

    def _earlier(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        return {(0, place): rows for place, rows in self._parts.rows.items()} if self._parts is not None else {}

    def _publish_files(self) -> None:
        """Gives the folder its name; a table that there is never names files of another run."""
        with self._said():
            if self.overwrite:
                self.path.unlink(missing_ok=True)
            publish_directory(self._staging, self.folder, self.overwrite)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise ConfigError(f"{str(self.folder)!r} was written by another process meanwhile") from None
        except OSError as error:
            raise ConfigError(f"{str(self.folder)!r} cannot be written: {error.strerror}") from error

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leaves nothing half-written but what the next run goes on from."""
        if self._parts is None:
            shutil.rmtree(self._staging, ignore_errors=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lets the data module bring all images again."""
        if self._parts is not None:
            trainer.datamodule.predicted = frozenset()  # type: ignore[attr-defined]
            self._parts = None


def _resumable(trainer: pl.Trainer) -> ImageDataModule | None:
    """Returns the data module, if it can leave out the images that are done and no number of batches was asked for."""
    data = getattr(trainer, "datamodule", None)
    limit = getattr(trainer, "limit_predict_batches", None)
    # A whole number counts batches, a fraction is a share.
    whole = isinstance(limit, float) and limit == 1.0
    return data if whole and isinstance(data, ImageDataModule) else None


def check_numbers(ids: Sequence[str], items: Sequence[Any]) -> None:
    """Refuses predictions that are no numbers.

    Args:
        ids: The images' ids.
        items: A prediction for each.

    Raises:
        DataError: If a prediction is not finite; the text names its image.
    """
    for name, item in zip(ids, items, strict=True):
        if any(not is_finite(leaf) for leaf in tree_leaves(item) if isinstance(leaf, torch.Tensor)):
            raise DataError(f"the prediction for {name!r} is not finite; did the training diverge?")


def _accuracy(columns: Columns) -> str:
    """Says of how many labelled images the label is the true one; nothing where none is labelled."""
    pairs = zip(columns.get("label", ()), columns.get("true", ()), strict=False)
    hits = [label == true for label, true in pairs if true]
    if not hits:
        return ""
    return f"the label is the true one of {sum(hits):,} of {len(hits):,} labelled images: {sum(hits) / len(hits):.2%}"


def _truth(task: Task, trainer: pl.Trainer, batch: Any) -> list[str]:
    """Returns what the targets of a batch are in words; nothing where the data have none of the task's."""
    targets = batch.get("target") if isinstance(batch, Mapping) else None
    layout = getattr(getattr(trainer, "datamodule", None), "predict_layout", task.layout)
    if targets is None or layout is not task.layout:
        return []
    if not isinstance(targets, torch.Tensor) or targets.dim() != 1 or targets.is_floating_point():
        return task.truth(targets)
    # A class of -1 is that of an image without a label.
    words = iter(task.truth(targets[targets >= 0]))
    return [next(words) if label >= 0 else "" for label in targets.tolist()]


def _writes_files(task: Task) -> bool:
    return type(task).file is not Task.file


def _rows(
    loader: int, batches: Sequence[Mapping[str, Any]], indices: Sequence[Sequence[int]], rank: int, world: int
) -> Iterator[_Row]:
    positions = [position for batch in indices for position in batch]
    number = 0
    for batch in batches:
        for rows in batch["rows"]:
            # A loader that Lightning cannot follow deals its images out in turn.
            position = positions[number] if positions else number * world + rank
            yield (loader, int(position)), rows
            number += 1


def _gather(rows: list[_Row], trainer: pl.Trainer) -> list[_Row]:
    if trainer.world_size == 1:
        return rows
    parts: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(rows, parts)
    return [row for part in parts or [] for row in part]


def _columns(rows: Mapping[tuple[int, int], list[dict[str, Any]]]) -> dict[str, list[Any]]:
    ordered = [row for position in sorted(rows) for row in rows[position]]
    if not any(row.get("true") for row in ordered):
        ordered = [{name: value for name, value in row.items() if name != "true"} for row in ordered]
    # Single precision has no more digits than these.
    return {
        name: [float(f"{row[name]:.8g}") if isinstance(row[name], float) else row[name] for row in ordered]
        for name in (ordered[0] if ordered else ["id"])
    }


def _check_files(columns: Columns) -> None:
    seen: dict[str, str] = {}
    for name, file in zip(columns.get("id", ()), columns.get("file", ()), strict=False):
        if seen.setdefault(file, name) != name:
            raise DataError(f"the images {seen[file]!r} and {name!r} would both write {file!r}; rename one of them")


def _task(pl_module: pl.LightningModule) -> Task:
    task = getattr(pl_module, "task", None)
    if not isinstance(task, Task):
        raise ConfigError(f"{type(pl_module).__name__} has no task; predictions cannot be written")
    return task


def _csv(columns: Columns) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _json(columns: Columns) -> bytes:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def _parquet(columns: Columns) -> bytes:
    pyarrow = _import_pyarrow()
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), buffer)
    return buffer.getvalue()


def _import_pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "a .parquet file needs pyarrow; install it with: pip install 'vimlight[parquet]', or write .csv"
        ) from None
    return pyarrow


_FORMATS: dict[str, Callable[[Columns], bytes]] = {".csv": _csv, ".json": _json, ".parquet": _parquet}
