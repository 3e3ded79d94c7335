"""Tasks on drawn scenes: as many images as asked for, the same ones for the same seed."""

from __future__ import annotations

from vimlight.data.scenes import make_task
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import TensorTable

__all__ = ["scenes"]


@SOURCES.register("scenes")
def scenes(
    task: str, train: int = 4000, test: int = 1000, seed: int = 0, size: int = 64, difficulty: float | None = None
) -> Source:
    """Draws a task of the scenes family.

    Args:
        task: A name of `vimlight.data.scenes.SCENE_TASKS`, such as `"letters"`.
        train: Number of images for training.
        test: Number of images for the test, drawn independently.
        seed: Decides what is drawn.
        size: Side of the images in pixels.
        difficulty: From 0 to 1; by default the task's own.

    Raises:
        UnknownNameError: If there is no such task.
    """
    # Even seeds are for training, odd ones for the test: no choice of seed lets them meet.
    images, targets, class_names, kind = make_task(task, train, 2 * seed, size=size, difficulty=difficulty)
    test_images, test_targets, _, _ = make_task(task, test, 2 * seed + 1, size=size, difficulty=difficulty)
    if kind == "multilabel":
        targets, test_targets = targets.long(), test_targets.long()
    name = f"scenes/{task}"
    held_out = TensorTable(test_images, test_targets, f"{name}/test")
    return Source(name, kind, class_names, TensorTable(images, targets, f"{name}/train"), held_out)
