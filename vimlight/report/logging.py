"""One way to show a figure or a table, whatever loggers a run has.

Weights & Biases and TensorBoard show both; a run with another logger, or none, gets PNG and CSV files in its directory.
Call these on one process only.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from vimlight.report.files import write_whole
from vimlight.report.plots import decode, png
from vimlight.report.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["log_confusion", "log_figure", "log_table", "table_csv"]

# The chart that `wandb.plot.confusion_matrix` makes of single predictions.
_CONFUSION = "wandb/confusion_matrix/v1"


def log_figure(loggers: Iterable[Logger], key: str, figure: Figure, *, step: int, directory: str | Path) -> None:
    """Shows a figure on every logger.

    Args:
        loggers: The run's loggers.
        key: Its name, such as `"val/confusion"`; a file is called `val_confusion.png`.
        figure: The figure.
        step: The trainer's step.
        directory: Where the file goes if a logger cannot show figures or there is no logger; a file of an earlier step
            is replaced.
    """
    others, content = False, png(figure)
    for logger in (known := list(loggers)):
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [decode(content)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, decode(content), step, dataformats="HWC")
        else:
            others = True
    if others or not known:
        write_whole(_file(directory, key, ".png"), content, overwrite=True)


def log_table(
    loggers: Iterable[Logger],
    key: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    step: int,
    directory: str | Path,
) -> None:
    """Shows a table on every logger; images in cells, `(H, W, 3)` uint8 arrays, where it can show them.

    Args:
        loggers: The run's loggers.
        key: Its name, such as `"val/predictions"`; a file is called `val_predictions.csv`.
        columns: Names of the columns.
        rows: The cells.
        step: The trainer's step.
        directory: Where the file goes if a logger cannot show tables or there is no logger; a file of an earlier step
            is replaced.
    """
    others = False
    for logger in (known := list(loggers)):
        if isinstance(logger, WandbLogger):
            import wandb

            data = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row] for row in rows]
            logger.log_table(key, columns=list(columns), data=data, step=step)
        elif isinstance(logger, TensorBoardLogger):
            titles, lines = _without_images(columns, rows)
            cells = [[(str(cell), False) for cell in line] for line in lines]
            logger.experiment.add_text(key, markdown_table(titles, cells), step)
        else:
            others = True
    if others or not known:
        write_whole(_file(directory, key, ".csv"), table_csv(*_without_images(columns, rows)), overwrite=True)


def log_confusion(
    loggers: Iterable[Logger], key: str, counts: Sequence[Sequence[float]], names: Sequence[str], *, step: int
) -> None:
    """Shows a confusion matrix as a chart of W&B, in which one points at cells; others have it as a figure.

    Args:
        loggers: The run's loggers.
        key: Its name, such as `"val/confusion_chart"`.
        counts: A row for each true class, with the count of each predicted one.
        names: Names of the classes.
        step: The trainer's step.
    """
    for logger in (each for each in loggers if isinstance(each, WandbLogger)):
        import wandb

        cells = [
            [true, predicted, int(count)]
            for true, row in zip(names, counts, strict=True)
            for predicted, count in zip(names, row, strict=True)
        ]
        columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
        chart = wandb.plot_table(
            vega_spec_name=_CONFUSION, data_table=wandb.Table(columns=columns, data=cells),
            fields={str(name): str(name) for name in columns}, string_fields={"title": key},
        )  # fmt: skip
        shown: dict[str, Any] = {key: chart}
        logger.log_metrics(shown, step)


def table_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table as CSV.

    Args:
        columns: Names of the columns.
        rows: The cells.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    return text.getvalue()


def _without_images(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    kept = [n for n in range(len(columns)) if not any(isinstance(row[n], np.ndarray) for row in rows)]
    return [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]


def _file(directory: str | Path, key: str, suffix: str) -> Path:
    return Path(directory) / f"{key.replace('/', '_')}{suffix}"
