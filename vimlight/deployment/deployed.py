"""The deployed model: images in, logits or predictions out, one traced graph, and a card that says what it expects."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from vimlight import __version__
from vimlight.aggregation import Aggregate
from vimlight.data.pictures import WHITE
from vimlight.deployment.fixing import fix
from vimlight.deployment.formats import format_of
from vimlight.errors import ExportError, unknown_name
from vimlight.files.atomic import refuse_existing, write_whole
from vimlight.files.exported import CARD_VERSION, deviation, trace
from vimlight.training.base import SupervisedModule

__all__ = ["OUTPUTS", "Deployed", "deploy"]

OUTPUTS = ("logits", "predictions")
_TOLERANCE = 1e-4


class Deployed(nn.Module):
    """A downstream model as one graph: gates folded, modules fused, no hooks, no zoo.

    Args:
        program: The traced graph.
        card: What it expects and answers.
        model: The fixed model that was traced, for forms that need its parts.
        references: Images and the trained model's answers for them.

    Attributes:
        program: The traced graph.
        card: Plain values: task, classes, outputs, preprocessing, backbone, modules, version.
        network: The graph as a module.
    """

    def __init__(
        self,
        program: ExportedProgram,
        card: dict[str, Any],
        model: SupervisedModule,
        references: list[tuple[Tensor, Any]],
    ) -> None:
        super().__init__()
        self.program = program
        self.card = card
        self.network = program.module()
        # Torch's own hooks look after modules among the inputs, and check sizes as the graph does itself.
        for hooks in (self.network._forward_pre_hooks, self.network._forward_hooks):
            hooks.clear()
        # In a tuple: what was traced is no part of the graph.
        self._model = (model,)
        self._references = references

    @property
    def model(self) -> SupervisedModule:
        """The fixed model that was traced."""
        return self._model[0]

    def forward(self, images: Tensor) -> Any:
        """Returns the answers for prepared images `(N, 3, H, W)`."""
        return self.network(images)

    def train(self, mode: bool = True) -> Deployed:
        """Stays as it is: a graph that was traced for inference knows no other mode."""
        self.training = False
        return self

    @torch.no_grad()
    def check(self, run: Callable[[Tensor], Any], what: str) -> float:
        """Compares another form of this model with the trained one, in batches of 1 and 3 random images.

        Args:
            run: From images to answers.
            what: The other form, as messages say it.

        Returns:
            The largest difference; of answers beyond 1, relative to the largest.

        Raises:
            ExportError: If it is more than 1e-4.
        """
        largest = max(deviation(run(images), expected) for images, expected in self._references)
        if not largest <= _TOLERANCE:
            raise ExportError(f"the answers of {what} differ from the trained model's by {largest:.2g}, not 1e-4")
        return largest

    def save(
        self, path: str | Path, format: str | None = None, *, overwrite: bool = False, opset: int | None = None
    ) -> float | None:
        """Writes one file, whole or not at all, after running its content and comparing the answers.

        Args:
            path: Where.
            format: Name in `FORMATS`; by the suffix if left out.
            overwrite: Whether an existing file is replaced.
            opset: Version of ONNX's operator set; the exporter's own if left out.

        Returns:
            The largest difference of its answers from the trained model's; nothing where onnxruntime is missing.

        Raises:
            ConfigError: If the file exists and `overwrite` is false.
            UnknownNameError: If there is no such format.
            ExportError: If the suffix is not the format's, the format cannot hold the model, or the answers differ.
        """
        file = Path(path).expanduser()
        chosen = format_of(file, format)
        refuse_existing(file, overwrite)
        content, run = chosen.pack(self, opset)
        difference = None if run is None else self.check(run, f"the {chosen.title}")
        write_whole(file, content, overwrite=overwrite)
        return difference

    def card_text(self) -> str:
        """Returns the card as JSON."""
        return json.dumps(self.card, ensure_ascii=False)


@torch.no_grad()
def deploy(model: SupervisedModule, outputs: str = "logits") -> Deployed:
    """Makes one plain module of a trained model; the model itself is not changed.

    Linear modules with gates that are the same for every image are folded into the backbone's weights, others become
    one fused addition a place; gates that depend on the image are computed in the graph.

    Args:
        model: A trained model, on any device.
        outputs: `"logits"` for what the head returns, or `"predictions"` for what the task makes of it, such as
            probabilities of classes.

    Returns:
        The module, on the CPU.

    Raises:
        UnknownNameError: If there are no such outputs.
        ExportError: If the model cannot be traced, or answers otherwise once it is.
    """
    if outputs not in OUTPUTS:
        raise unknown_name("outputs", outputs, OUTPUTS)
    card = _card(model, outputs)
    own = _copy(model)
    answer = _Answer(own, outputs)
    size = card["preprocessing"]["size"]
    images = [torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count)) for count in (1, 3)]
    references = [(batch, answer(batch)) for batch in images]
    if isinstance(aggregator := getattr(own, "aggregator", None), Aggregate):
        own.aggregator = fix(aggregator)
    try:
        program = trace(_Answer(own, outputs), images[1])
    except ExportError as error:
        # What a task makes of its outputs may be of another length for every image, such as boxes.
        hint = "; deploy its logits instead" if outputs != "logits" else ""
        raise ExportError(f"{error}{hint}") from error
    deployed = Deployed(program, card, own, references)
    deployed.check(deployed, "the deployed model")
    return deployed


class _Answer(nn.Module):
    """From images to a task's answer, with nothing of the training around it."""

    def __init__(self, model: SupervisedModule, outputs: str) -> None:
        super().__init__()
        # An aggregator has the backbone, metrics are not deployed, and what is registered twice would be kept twice.
        left_out = {"metrics", "confusion"} | ({"backbone"} if hasattr(model, "aggregator") else set())
        for name, part in model.named_children():
            if name not in left_out:
                self.add_module(name, part)
        self._model = (model,)
        self._outputs = outputs

    def forward(self, images: Tensor) -> Any:
        (model,) = self._model
        outputs = model(images)
        if self._outputs == "logits":
            return outputs
        height, width = images.shape[-2:]
        return model.task.predictions(outputs, (height, width))


def _copy(model: SupervisedModule) -> SupervisedModule:
    # A trainer holds data, loggers and all.
    trainer, model._trainer = model._trainer, None
    try:
        return copy.deepcopy(model).cpu().eval()
    finally:
        model._trainer = trainer


def _card(model: SupervisedModule, outputs: str) -> dict[str, Any]:
    backbone = model.backbone
    return {
        "vimlight": __version__,
        "format_version": CARD_VERSION,
        "task": model.task.kind,
        "classes": list(model.task.class_names),
        "outputs": outputs,
        "preprocessing": json.loads(json.dumps(model.preprocessing.as_dict())),
        "background": model.background or WHITE,
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "aggregator": getattr(model, "settings", {}).get("how", ""),
        "modules": list(getattr(model, "module_names", [])),
    }
