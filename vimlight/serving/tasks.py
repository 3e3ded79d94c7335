"""The tasks that are served: from checkpoints to the answers for one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from PIL.Image import Image
from torch import Tensor

from vimlight.backbone import READOUTS, Backbone, Preprocessing
from vimlight.data.pictures import WHITE, rgb_tensor
from vimlight.data.transforms import fit, normalise
from vimlight.deployment.multitask import MultiTask, load_models
from vimlight.deployment.run import config_file
from vimlight.errors import ConfigError
from vimlight.files.text import read_text
from vimlight.files.yaml_text import yaml_of
from vimlight.pages.sources.fit import Gates
from vimlight.report.facts import facts_of
from vimlight.serving.answers import answer, check_kind
from vimlight.tasks import Task
from vimlight.training.downstream import DownstreamModule

__all__ = ["ServedTask", "ServedTasks", "name_of"]


@dataclasses.dataclass(frozen=True)
class ServedTask:
    """What is kept of a downstream model beside its gates and head.

    Attributes:
        task: The task.
        preprocessing: How it wants images prepared.
        background: Colour that transparent pixels lie over.
        gates: What each module weighs at each place, the same for every image.
    """

    task: Task
    preprocessing: Preprocessing
    background: str
    gates: Gates

    @classmethod
    def of(cls, name: str, model: DownstreamModule) -> ServedTask:
        """Keeps what is needed of a trained model.

        Args:
            name: The task's name.
            model: The model.

        Raises:
            ConfigError: If the kind of task has no answer that can be shown, or learnt from parts of images although
                its answers lie in whole ones.
        """
        check_kind(name, model.task)
        how = model.preprocessing
        if model.task.layout.spatial and model.prepared is None:
            how = dataclasses.replace(how, crop_mode="squash", crop_pct=1.0)
        if model.task.layout.spatial and (how.crop_mode, how.crop_pct) != ("squash", 1.0):
            raise ConfigError(
                f"task {name!r} is of the kind {model.task.kind} and learnt from cropped images, so that its answers "
                "do not lie in whole ones; train it with resize: squash in the data's settings"
            )
        gates = Gates(model.aggregator.places, model.aggregator.names, model.gates.tolist())
        return cls(model.task, how, model.background or WHITE, gates)

    def about(self) -> dict[str, Any]:
        """Returns what is said of the task: its kind, its classes and its modules."""
        return {"kind": self.task.kind, "classes": list(self.task.class_names), "modules": list(self.gates.names)}


class ServedTasks:
    """Downstream models over one backbone that answer an image together.

    Heads of vectors share one pass, and so do heads of maps; see `MultiTask.together` for what a pass computes once.

    Args:
        models: The trained models by task; they are moved to the device.
        device: Where they compute; what is made of their outputs is made on the processor.

    Attributes:
        tasks: What is served, by name.
        passes: How many passes an image takes.

    Raises:
        ConfigError: If a kind of task has no answer that can be shown, or tasks want images of different sizes.
        FingerprintError: If the tasks have different backbones.
        PluginError: If an aggregator has gates that depend on the image, or needs several passes.
    """

    def __init__(self, models: Mapping[str, DownstreamModule], device: torch.device | str = "cpu") -> None:
        self.tasks = {name: ServedTask.of(name, model) for name, model in models.items()}
        self._device = torch.device(device)
        # Checked over all tasks: those of maps and those of vectors share the backbone too.
        _check_alike(models)
        for model in models.values():
            model.to(self._device)
        self._groups = [MultiTask.of(group).eval().to(self._device) for group in _by_features(models)]

    @classmethod
    def load(
        cls,
        checkpoints: Mapping[str, str | Path],
        *,
        zoo: str | Path | None = None,
        device: torch.device | str = "cpu",
    ) -> ServedTasks:
        """Loads the models of several runs of `vimlight fit`.

        Args:
            checkpoints: The runs' checkpoints by task; see `load_models`, also for what is raised.
            zoo: Directory of the zoo, where it is no longer the configs'.
            device: Where they compute.
        """
        return cls(load_models(checkpoints, zoo=zoo), device)

    @property
    def backbone(self) -> Backbone:
        """The backbone."""
        return self._groups[0].backbone

    @property
    def passes(self) -> int:
        """How many passes through the backbone an image takes."""
        return len(self._groups)

    @torch.no_grad()
    def answers(self, image: Image, *, files: bool = False) -> dict[str, dict[str, Any]]:
        """Answers one image for every task.

        Args:
            image: The image, as it was opened.
            files: Whether answers bring the files that `vimlight predict` would write, such as masks.

        Returns:
            Plain values by task; see `vimlight.serving.answers.answer`.

        Raises:
            DataError: If the image has no known white, or a prediction is not finite.
        """
        pixels = {over: rgb_tensor(image, over) for over in {task.background for task in self.tasks.values()}}
        views, choice = self._views(pixels)
        inputs = torch.stack([normalise(view.float() / 255, how) for view, how in views]).to(self._device)
        outputs = {name: out for group in self._groups for name, out in _run(group, inputs, choice).items()}
        found = move_data_to_device(outputs, "cpu")
        size = next(iter(pixels.values())).shape[-2:]
        return {
            name: answer(served.task, found[name], views[choice[name]][0], (size[0], size[1]), files=files)
            for name, served in self.tasks.items()
        }

    def _views(self, pixels: Mapping[str, Tensor]) -> tuple[list[tuple[Tensor, Preprocessing]], dict[str, int]]:
        """Returns the image in each way in which tasks want it prepared, and which of them each task reads."""
        ways = list(dict.fromkeys((task.background, task.preprocessing) for task in self.tasks.values()))
        views = [(fit(pixels[over], how), how) for over, how in ways]
        return views, {name: ways.index((task.background, task.preprocessing)) for name, task in self.tasks.items()}


def name_of(checkpoint: str | Path) -> str:
    """Returns what a run's task is called: its data set, else the run's directory.

    Args:
        checkpoint: The run's checkpoint.

    Raises:
        ConfigError: If the run has no config.
    """
    file = config_file(Path(checkpoint))
    content = yaml_of(read_text(file, ConfigError), repr(str(file)), ConfigError)
    dataset = facts_of(content).dataset if isinstance(content, dict) else ""
    return dataset or file.absolute().parent.name


def _check_alike(models: Mapping[str, DownstreamModule]) -> None:
    MultiTask.check({name: model.aggregator for name, model in models.items()})
    sizes = {name: tuple(model.preprocessing.size) for name, model in models.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"the tasks want images of different sizes, {sizes}; serve those of one size together")


def _by_features(models: Mapping[str, DownstreamModule]) -> list[Mapping[str, DownstreamModule]]:
    """Returns the tasks in groups whose heads can read from one pass."""
    groups: dict[str, dict[str, DownstreamModule]] = {}
    vectors = next((m.readout for m in models.values() if m.readout in READOUTS and m.readout != "last"), "last")
    for name, model in models.items():
        groups.setdefault(vectors if model.readout == "last" else model.readout, {})[name] = model
    return list(groups.values())


def _run(group: MultiTask, inputs: Tensor, choice: Mapping[str, int]) -> dict[str, Any]:
    used: Sequence[int] = sorted({choice[name] for name in group.names})
    return group.together(inputs[list(used)], {name: used.index(choice[name]) for name in group.names})
