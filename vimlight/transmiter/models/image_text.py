"""Image-text models: any of open_clip, or one of the embedded pair, behind one small face."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from vimlight.embedded import PAIR_MODELS
from vimlight.errors import CheckpointError, ConfigError, unknown_name
from vimlight.files.hub import hub_or_disk, is_missing, not_there
from vimlight.files.tensor_file import sha256_of
from vimlight.files.weight_file import WeightFile, read_weights
from vimlight.precision import multiplies_in_bfloat16
from vimlight.transmiter.models.recipes import recipe_for
from vimlight.transmiter.models.weights import BIG_VISION, fine_tune, fit, load_big_vision

__all__ = ["PRECISIONS", "ImageInput", "ImageTextModel", "load_model"]

PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "16": torch.float16, "bf16": torch.bfloat16}
_SCHEMES = ("hf-hub:", "local-dir:")
_FAULTS = (RuntimeError, OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError)


@dataclass(frozen=True)
class ImageInput:
    """What a model expects of its images.

    Attributes:
        size: Height and width in pixels.
        mean: Mean per channel, for values in [0, 1].
        std: Standard deviation per channel.
        interpolation: `"bicubic"` or `"bilinear"`.
        resize_mode: `"shortest"` covers the input and crops the centre, `"squash"` ignores the aspect ratio,
            `"longest"` shows the whole image and fills the margin.
        fill_color: Grey value of that margin, 0 to 255.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def of(cls, model: nn.Module) -> ImageInput:
        """Reads the configuration that open_clip attaches to its models."""
        config: dict[str, Any] = dict(model.visual.preprocess_cfg)  # type: ignore[union-attr,arg-type]
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size
        known = {key: config[key] for key in ("resize_mode", "fill_color") if config.get(key) is not None}
        interpolation = "bilinear" if config.get("interpolation") == "bilinear" else "bicubic"
        return cls((int(height), int(width)), tuple(config["mean"]), tuple(config["std"]), interpolation, **known)

    @property
    def crop_pct(self) -> float:
        """Share of the resized image's shorter side that the centre crop keeps."""
        return 1.0

    @property
    def crop_mode(self) -> str:
        """The resize mode by timm's name for it."""
        return {"squash": "squash", "longest": "border"}.get(self.resize_mode, "center")

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for manifests."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


class ImageTextModel:
    """A frozen image-text model in eval mode.

    Args:
        name: Its name.
        model: A module with `encode_image`, `encode_text`, `logit_scale` and, for sigmoid models, `logit_bias`.
        tokenizer: From a list of texts to tokens `(N, L)` int64; those of open_clip take a `context_length` L too.
        image_input: What it expects of its images.
        arguments: What `load_model` was called with, so that others can load it again.

    Attributes:
        precision: In what it computes; see `to`.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        tokenizer: Callable[..., Tensor],
        image_input: ImageInput,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_input = image_input
        self.arguments = dict(arguments or {})
        self.precision = "32"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def scale(self) -> float:
        """Factor of the cosines."""
        return float(self.model.logit_scale.exp())  # type: ignore[operator]

    @property
    def bias(self) -> float:
        """What is added to every logit; zero but for sigmoid models."""
        bias = getattr(self.model, "logit_bias", None)
        return 0.0 if bias is None else float(bias)

    @cached_property
    def weights(self) -> str:
        """SHA-256 over the names, shapes, types and bytes of all weights, computed once."""
        return sha256_of({key: value.detach().cpu().contiguous() for key, value in self.model.state_dict().items()})

    def to(self, device: torch.device | str, precision: str = "32") -> ImageTextModel:
        """Moves the weights, which stay in float32, and says in what precision to compute.

        Args:
            device: Where to.
            precision: `"32"`, or `"16"` or `"bf16"` for automatic mixed precision; `"auto"` for bfloat16 where the
                device multiplies in it, which is then what the attribute says.

        Raises:
            UnknownNameError: If there is no such precision.
        """
        if precision == "auto":
            precision = "bf16" if multiplies_in_bfloat16(device) else "32"
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, [*PRECISIONS, "auto"])
        self.model.to(device)
        self.precision = precision
        return self

    def encode_image(self, images: Tensor) -> Tensor:
        """Returns L2-normalised features `(N, E)` float32 of prepared images `(N, 3, H, W)` on the model's device."""
        with self._inference():
            return F.normalize(self.model.encode_image(images).float(), dim=-1)  # type: ignore[operator]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Returns L2-normalised features `(N, E)` float32 of texts, on the model's device."""
        tokens = self.tokenizer(list(texts)).to(self.device)
        with self._inference():
            return F.normalize(self.model.encode_text(tokens).float(), dim=-1)  # type: ignore[operator]

    @contextmanager
    def _inference(self) -> Iterator[None]:
        dtype = PRECISIONS[self.precision]
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            yield


def load_model(
    name: str, pretrained: str | None = None, checkpoint: str | None = None, tag: str | None = None
) -> ImageTextModel:
    """Loads an image-text model in float32 on the CPU.

    Args:
        name: A model of open_clip, `hf-hub:owner/model`, `local-dir:path`, or one of the embedded pair.
        pretrained: Tag of the weights, or a file of them: `.safetensors`, plain tensors, or a TorchScript archive such
            as OpenAI published; not for `hf-hub:`, `local-dir:` and the embedded pair, which bring theirs.
        checkpoint: Fine-tuned weights of the same model, loaded on top; preprocessing and activation stay those that
            belong to `pretrained`.
        tag: The published weights that a file holds or descends from. It decides activation and preprocessing, and is
            needed where the file does not tell and the tags of that name disagree.

    Raises:
        UnknownNameError: If there is no such model or tag.
        ConfigError: If `pretrained` or `tag` is missing, of no use, or at odds with the file.
        CheckpointError: If the weights cannot be had or do not fit.
    """
    arguments = {"name": name, "pretrained": pretrained, "checkpoint": checkpoint}
    if tag is not None:
        arguments["tag"] = tag
    if name in PAIR_MODELS or name.startswith(_SCHEMES):
        for key, value in (("pretrained", pretrained), ("tag", tag)):
            if value is not None:
                raise ConfigError(f"model {name!r} brings its own weights; leave out {key}: {value!r}")
        loaded = _embedded(name) if name in PAIR_MODELS else _made(name, require_pretrained=checkpoint is None)
    else:
        loaded = _open_clip(name, pretrained, checkpoint, tag)
    loaded.arguments = arguments
    if checkpoint is not None and (pretrained is not None or name in PAIR_MODELS or name.startswith(_SCHEMES)):
        fine_tune(loaded.model, checkpoint)
    return loaded


def _embedded(name: str) -> ImageTextModel:
    from vimlight.embedded import load_pair_model
    from vimlight.embedded.towers import IMAGE_SIZE, MEAN, STD

    model, tokenizer, _ = load_pair_model(name)
    return ImageTextModel(name, model, tokenizer, ImageInput((IMAGE_SIZE, IMAGE_SIZE), MEAN, STD, resize_mode="squash"))


def _open_clip(name: str, pretrained: str | None, checkpoint: str | None, tag: str | None) -> ImageTextModel:
    """Loads a model that open_clip knows by name."""
    if name not in open_clip.list_models():
        raise unknown_name("model", name, [*open_clip.list_models(), *PAIR_MODELS])
    tags = open_clip.list_pretrained_tags_by_model(name)
    weights = checkpoint if pretrained is None else pretrained
    if weights is None:
        raise ConfigError(f"model {name!r} needs weights: pretrained: {' or '.join(tags[:3]) or 'a file'}, or a file")
    if pretrained in tags:
        if tag is not None:
            raise ConfigError(f"pretrained: {pretrained} is a tag itself; leave out tag: {tag!r}")
        # OpenAI's weights want another activation than open_clip's plain names stand for.
        quick = bool(open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu"))
        return _made(name, pretrained=pretrained, force_quick_gelu=quick, require_pretrained=True)
    path = Path(weights).expanduser()
    if pretrained is not None and not path.suffix and not path.is_file():
        raise unknown_name(f"weights of {name!r}", pretrained, tags)
    return _from_file(name, path, "checkpoint" if pretrained is None else "pretrained", tag)


def _from_file(name: str, path: Path, what: str, tag: str | None) -> ImageTextModel:
    big_vision = path.suffix in BIG_VISION and path.is_file()
    file = WeightFile(path, {}) if big_vision else read_weights(path, what)
    recipe = recipe_for(name, file, tag)
    loaded = _made(name, load_weights=False, pretrained_text=False, **recipe.creation())
    if big_vision:
        load_big_vision(loaded.model, path)
    else:
        fit(loaded.model, file)
    return loaded


def _made(name: str, **options: Any) -> ImageTextModel:
    try:
        with _quiet(), hub_or_disk(options.get("load_weights", not name.startswith("local-dir:"))):
            model = open_clip.create_model(name, **options)
            tokenizer = open_clip.get_tokenizer(name)
    except _FAULTS as error:
        said = not_there("its files are", "pretrained: FILE") if is_missing(error) else _first_line(error)
        raise CheckpointError(f"model {name!r} cannot be loaded: {said}") from error
    return ImageTextModel(name, model, tokenizer, ImageInput.of(model))


def _first_line(error: Exception) -> str:
    """Returns the first two lines of another library's error, or its type where it says nothing."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps open_clip from logging what the errors here say anyway."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(before)
