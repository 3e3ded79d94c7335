"""Deployment: image tower, text head and adapter as one module, images in and refined task logits out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.errors import AdapterError, ExportError, FingerprintError
from vimlight.files.atomic import refuse_existing, write_whole
from vimlight.files.exported import CARD_VERSION, deviation, packed_onnx, packed_program, trace
from vimlight.transmiter.adapters.transmiter import Adapter
from vimlight.transmiter.cache import LogitCache, TextHead
from vimlight.transmiter.models.image_text import ImageTextModel

__all__ = ["RefinedModel", "deploy"]

_TOLERANCE = 1e-4


class RefinedModel(nn.Module):
    """The image tower of an image-text model, the text vectors of its classes, and an adapter.

    It has no text tower and needs no tokeniser. For `torch.export.export` it is an ordinary module with one input,
    whose batch may be dynamic; `save` writes it as one file.

    Args:
        visual: From images `(N, 3, H, W)` to features `(N, E)`, such as `visual` of an open_clip model.
        head: Text vectors of the M classes.
        adapter: Any adapter of M logits.

    Raises:
        AdapterError: If the adapter takes another number of logits than the head makes.
    """

    weights: Tensor

    def __init__(self, visual: nn.Module, head: TextHead, adapter: Adapter) -> None:
        super().__init__()
        if len(head) != adapter.num_logits:
            raise AdapterError(f"the text head makes {len(head)} logits, the adapter takes {adapter.num_logits}")
        self.visual = visual
        self.adapter = adapter.for_inference()
        self.register_buffer("weights", head.weights.clone())
        self.scale = head.scale
        self.bias = head.bias

    def forward(self, images: Tensor) -> Tensor:
        """Returns refined task logits `(N, C)` of prepared images `(N, 3, H, W)`."""
        pooled = self.visual(images)
        # Towers of captioning models return their tokens too.
        features = F.normalize(pooled[0] if isinstance(pooled, tuple) else pooled, dim=-1)
        logits = self.scale * features @ self.weights.T + self.bias
        return self.adapter.task_logits(logits, features)

    @torch.no_grad()
    def save(self, path: str | Path, images: Tensor, *, overwrite: bool = False) -> float | None:
        """Writes the module as one file that runs alone, for batches of any size, with a card inside.

        Args:
            path: The file: `.onnx`, or `.pt2` for `torch.export.load`.
            images: Two or more prepared images, `(N, 3, H, W)`, on which the file is tried out.
            overwrite: Whether an existing file is replaced.

        Returns:
            The largest difference of the file's answers from the module's, of answers beyond 1 relative to the largest;
            nothing where onnxruntime is missing.

        Raises:
            ConfigError: If the file exists and `overwrite` is false.
            ExportError: If the suffix is another one, the module cannot be traced, an ONNX file cannot hold it, or the
                file answers otherwise.
        """
        file = Path(path).expanduser()
        if file.suffix not in (".onnx", ".pt2"):
            raise ExportError(f"{file.name!r} must end in .onnx, or in .pt2 for a program of torch.export")
        refuse_existing(file, overwrite)
        program = trace(self, images)
        card = self.adapter.card
        facts = {"outputs": "logits", "classes": list(card.class_names), "model": card.model}
        text = json.dumps({"format_version": CARD_VERSION, **facts}, ensure_ascii=False)
        content, run = packed_onnx(program, text, "logits") if file.suffix == ".onnx" else packed_program(program, text)
        difference = None if run is None else deviation(run(images), self(images))
        if difference is not None and not difference <= _TOLERANCE:
            raise ExportError(f"the answers of {file.name!r} differ from the module's by {difference:.1e}")
        write_whole(file, content, overwrite=overwrite)
        return difference


def deploy(model: ImageTextModel | nn.Module, cache: LogitCache, adapter: Adapter) -> RefinedModel:
    """Puts together what refines the logits that a cache holds.

    Args:
        model: The cached model: an open_clip model, or what `load_model` returns.
        cache: A cache of features of it, which has the text vectors of the classes.
        adapter: An adapter of its logits.

    Returns:
        The module in eval mode; the parts are shared, not copied.

    Raises:
        AdapterError: If the cache has no text vectors, or the adapter is of another model or of other classes.
        FingerprintError: If the cache was built with other weights.
    """
    adapter.check_cache(cache)
    if cache.head is None:
        raise AdapterError(f"cache {str(cache.path)!r} holds bare logits; deployment needs the text vectors of a cache")
    tower = model
    if isinstance(model, ImageTextModel):
        known = cache.manifest.weights
        if known and known != model.weights:
            raise FingerprintError(
                f"cache {str(cache.path)!r} was built with weights {known[:12]}, not with those of {model.name!r} "
                f"({model.weights[:12]})"
            )
        tower = model.model
    return RefinedModel(tower.visual, cache.head, adapter).eval()  # type: ignore[union-attr,arg-type]
