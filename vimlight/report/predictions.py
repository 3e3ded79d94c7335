"""Predictions as a file: one row an image, one column a class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed
from lightning.pytorch.callbacks import BasePredictionWriter

from vimlight.errors import ConfigError, unknown_name
from vimlight.report.files import refuse_existing, write_whole

__all__ = ["PredictionWriter"]

Columns = Mapping[str, Sequence[Any]]
# Position in the data (loader, image) and the row: id, label, probabilities.
_Row = tuple[tuple[int, int], str, str, list[float]]


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` returns: `id`, `label` and a column `p_CLASS` of probabilities for each class.

    Rows come in the order of the data, each image once, from however many processes. The suffix of the path decides the
    format: `.csv`, `.json` (a list of objects) or `.parquet`. The file appears whole or not at all.

    Args:
        path: Where to write.
        overwrite: Whether an existing file is replaced.

    Raises:
        UnknownNameError: If the suffix is none of these.
    """

    def __init__(self, path: str = "predictions.csv", *, overwrite: bool = False) -> None:
        super().__init__(write_interval="epoch")
        self.path = Path(path)
        self.overwrite = overwrite
        if self.path.suffix not in _FORMATS:
            raise unknown_name("suffix of a predictions file", self.path.suffix, _FORMATS)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks before any work that the file can be written.

        Raises:
            ConfigError: If the file exists and may not be replaced, the model has no classes, or pyarrow is missing.
        """
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        refuse_existing(self.path, self.overwrite)
        _class_names(pl_module)
        if self.path.suffix == ".parquet":
            _import_pyarrow()

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
        """
        loaders = (
            [predictions] if trainer.num_predict_batches and len(trainer.num_predict_batches) == 1 else predictions
        )
        rows = [
            row
            for loader, batches in enumerate(loaders)
            for row in _rows(loader, batches, batch_indices[loader], trainer.global_rank, trainer.world_size)
        ]
        gathered = _gather(rows, trainer)
        if trainer.is_global_zero:
            columns = _columns(gathered, _class_names(pl_module))
            write_whole(self.path, _FORMATS[self.path.suffix](columns), overwrite=self.overwrite)


def _rows(
    loader: int, batches: Sequence[Mapping[str, Any]], indices: Sequence[Sequence[int]], rank: int, world: int
) -> Iterator[_Row]:
    positions = [position for batch in indices for position in batch]
    number = 0
    for batch in batches:
        for name, label, probabilities in zip(
            batch["id"], batch["label"], batch["probabilities"].tolist(), strict=True
        ):
            # A loader that Lightning cannot follow deals its images out in turn.
            position = positions[number] if positions else number * world + rank
            yield (loader, int(position)), str(name), str(label), probabilities
            number += 1


def _gather(rows: list[_Row], trainer: pl.Trainer) -> list[_Row]:
    if trainer.world_size == 1:
        return rows
    parts: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(rows, parts)
    return [row for part in parts or [] for row in part]


def _columns(rows: list[_Row], class_names: Sequence[str]) -> dict[str, list[Any]]:
    unique = {row[0]: row[1:] for row in rows}
    ordered = [unique[position] for position in sorted(unique)]
    probabilities = zip(*(row[2] for row in ordered), strict=True) if ordered else [[] for _ in class_names]
    by_class = zip(class_names, probabilities, strict=True)
    return {
        "id": [row[0] for row in ordered],
        "label": [row[1] for row in ordered],
        # Single precision has no more digits than these.
        **{f"p_{name}": [float(f"{value:.8g}") for value in values] for name, values in by_class},
    }


def _class_names(pl_module: pl.LightningModule) -> Sequence[str]:
    names = getattr(getattr(pl_module, "task", None), "class_names", None)
    if names is None:
        raise ConfigError(f"{type(pl_module).__name__} has no task with class names; predictions cannot be written")
    return tuple(names)


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
