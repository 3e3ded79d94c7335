"""What is said of one image for one task, in plain values; every kind of task that has words is answered by them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from vimlight.errors import ConfigError
from vimlight.report.predictions import check_numbers
from vimlight.tasks import Task

__all__ = ["TOP", "answer", "check_kind"]

TOP = 5
"""How many of the most probable classes an answer names."""

# An image is called nothing: its name is not sent.
_UNNAMED = "image"
_IDS = ("id", "image_id")


def check_kind(name: str, task: Task) -> None:
    """Checks that answers of a kind of task can be shown.

    Args:
        name: The task's name.
        task: The task.

    Raises:
        ConfigError: If its predictions have neither words nor a picture.
    """
    if type(task).labels is Task.labels and type(task).draw is Task.draw:
        raise ConfigError(
            f"task {name!r} is of the kind {task.kind}, whose predictions have neither words nor a picture; write them "
            "with vimlight predict"
        )


def answer(task: Task, outputs: Any, view: Tensor, size: tuple[int, int], *, files: bool = False) -> dict[str, Any]:
    """Says what a task's head made of one image.

    Args:
        task: The task.
        outputs: What the head returned for a batch of it.
        view: The image as it was prepared, `(3, H, W)` uint8.
        size: Height and width of the image as it was given.
        files: Whether the file that `vimlight predict` would write, such as a mask, comes along.

    Returns:
        `kind`; `label`, the prediction in words; where the task has them, `top`, the most probable classes with their
        `probability`, `values` by name, `objects` with boxes in pixels of the image given, `picture`, a PNG as a data
        URL, and `file` with its `suffix` and its `content` in base64.

    Raises:
        DataError: If a prediction is not finite.
    """
    predictions = task.predictions(outputs, (view.shape[-2], view.shape[-1]))
    check_numbers([_UNNAMED], list(predictions))
    found: dict[str, Any] = {"kind": task.kind, "label": task.labels(predictions)[0]}
    (rows,) = task.rows([_UNNAMED], predictions, [size])
    found |= _told(task, rows) if type(task).rows is Task.rows else {"objects": [_own(row) for row in rows]}
    drawn = task.draw(np.ascontiguousarray(view.permute(1, 2, 0).numpy()), predictions[0])
    if drawn is not None:
        found["picture"] = _data_url(Image.fromarray(drawn))
    if files and (written := task.file(predictions[0], size)) is not None:
        found["file"] = {"suffix": written[0], "content": base64.b64encode(written[1]).decode()}
    return found


def _told(task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the numbers of the row that `vimlight predict` writes for an image."""
    (row,) = rows
    if task.class_names and all(f"p_{name}" in row for name in task.class_names):
        best = sorted(task.class_names, key=lambda name: row[f"p_{name}"], reverse=True)[:TOP]
        return {"top": [{"class": name, "probability": row[f"p_{name}"]} for name in best]}
    values = {key: value for key, value in _own(row).items() if key != "label"}
    return {"values": values} if values else {}


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _IDS}


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
