"""Fine-tuned models from files that other tools leave: what their tensors say is done, anything else is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.errors import CheckpointError, ConfigError, shown
from vimlight.files.checkpoint_facts import tensors_in
from vimlight.files.tensor_file import sha256_of
from vimlight.files.weight_file import read_plain
from vimlight.transmiter.cache import LogitCache, TextHead
from vimlight.transmiter.cache.imports import read_head
from vimlight.transmiter.cache.tables import SUFFIXES
from vimlight.transmiter.models.image_text import ImageTextModel
from vimlight.transmiter.models.templates import class_features
from vimlight.transmiter.models.weights import uses_quick_gelu
from vimlight.transmiter.sources.base import Start, Tuning
from vimlight.transmiter.sources.coop import CoOp

__all__ = ["FoldedModel", "TunedFile", "TunedText", "load_tuned"]

# Blocks by CLIP-LoRA's names for them; both towers of ViT-B have 12.
_BLOCKS: dict[str, Sequence[int]] = {
    "all": range(12), "top": [11], "top1": [11], "top2": [10, 11], "top3": [9, 10, 11], "bottom": range(4),
    "mid": range(4, 8), "up": range(8, 12), "half-up": range(6, 12), "half-bottom": range(6),
}  # fmt: skip
_PARTS = ("q_proj", "k_proj", "v_proj")
_CURE = "give the tuned text features (.npy, .pt) here, or tuned logits with vimlight cache import --logits"


class TunedFile(NamedTuple):
    """A fine-tuned model from a file.

    Attributes:
        kind: What the file is: `"clip_lora"`, `"coop"` or `"text_features"`.
        tuning: The model.
        facts: How it came about, for manifests.
    """

    kind: str
    tuning: Tuning
    facts: dict[str, Any]


class TunedText(Tuning):
    """Zero-shot image features beside tuned text features.

    Args:
        start: The zero-shot model.
        text: Text features of the C task classes `(C, E)`.
    """

    def __init__(self, start: Start, text: Tensor) -> None:
        super().__init__(start)
        self.learned = nn.ParameterDict({"text": nn.Parameter(F.normalize(text.float(), dim=1), requires_grad=False)})

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of features `(n, E)`."""
        return self.head_logits(inputs, self.learned["text"])  # type: ignore[index]

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns the features as they are."""
        return inputs

    def head(self) -> TextHead:
        """Returns the tuned head."""
        return self.as_head(self.learned["text"])  # type: ignore[index]


class FoldedModel(Tuning):
    """A model whose weights were changed, with the cache's prompts.

    Args:
        start: The zero-shot model.
        model: The changed model.
        changes: What was added to its weights.
    """

    reads = "images"

    def __init__(self, start: Start, model: ImageTextModel, changes: Mapping[str, Tensor]) -> None:
        super().__init__(start)
        self.model = model.model
        self.learned = nn.ParameterDict({k: nn.Parameter(v, requires_grad=False) for k, v in changes.items()})
        manifest = start.cache.manifest
        self.register_buffer("tuned", class_features(model, manifest.class_names, manifest.text["templates"]))

    tuned: Tensor

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns features `(n, E)` of images, L2-normalised."""
        return F.normalize(self.model.encode_image(inputs).float(), dim=1)  # type: ignore[operator]

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of prepared images `(n, 3, H, W)`."""
        return self.head_logits(self.rows(inputs), self.tuned)

    def head(self) -> TextHead:
        """Returns the tuned head."""
        return self.as_head(self.tuned)


def load_tuned(path: str | Path, cache: LogitCache) -> TunedFile:
    """Reads a fine-tuned model, telling by the content which tool wrote it; nothing in the file is run.

    CLIP-LoRA's `lora_weights.pt`: its factor is alpha over the square root of the rank; text blocks are numbered first.
    CoOp's checkpoints (`model-best.pth.tar`) with one context for all classes: where the class name stands is in no
    tensor, so it is taken to stand behind the context, CoOp's default. Files of numbers are tuned text features
    `(C, E)`. Prompts within the towers (MaPLe, PromptSRC) are refused: they change the towers' code.

    Args:
        path: The file.
        cache: A zero-shot cache of the model that was tuned.

    Raises:
        CheckpointError: If the file cannot be read, or is not one of these.
        ConfigError: If the cache holds bare logits.
        CacheError: If the cache does not say which model it was built with, and that is needed.
        DataError: If text features are not one vector a class.
    """
    file = Path(path).expanduser()
    if cache.head is None:
        raise ConfigError(f"cache {str(cache.path)!r} holds bare logits; give one with features of the tuned model")
    start = Start(cache, cache.head.columns(torch.arange(cache.num_classes)), _no_labels)
    content = None if file.suffix in set(SUFFIXES) - {".pt", ".pth"} else read_plain(file, "tuned model")
    if isinstance(content, Mapping) and {"weights", "metadata"} <= content.keys():
        return _clip_lora(file, content, start)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        return _prompts(file, content["state_dict"], start)
    return _text(file, path, start)


def _text(file: Path, path: str | Path, start: Start) -> TunedFile:
    text, zero_shot = read_head(str(path), 1.0, 0.0).weights, start.head.weights
    if text.shape != zero_shot.shape:
        raise CheckpointError(
            f"{file.name} holds text features {tuple(text.shape)}, expected {tuple(zero_shot.shape)}: one for each of "
            f"the task classes of {str(start.cache.path)!r}, in their order"
        )
    return TunedFile("text_features", TunedText(start, text), {"file": file.name})


def _prompts(file: Path, state: Mapping[str, Tensor], start: Start) -> TunedFile:
    plain = tensors_in(state, "state_dict")
    tensors = {name.removeprefix("prompt_learner."): tensor for name, tensor in plain.items()}
    foreign = sorted(tensors.keys() - {"ctx", "token_prefix", "token_suffix"})
    if foreign or "ctx" not in tensors:
        _refuse(file, f"holds prompts within the towers, or more than CoOp's context (such as {foreign[:2]})")
    context = tensors["ctx"].float()
    if context.ndim != 2:
        _refuse(file, f"has contexts of their own for {len(context)} classes, which serve no others")
    tuning = CoOp(start, context=len(context))
    width = tuning.embedding.embedding_dim
    prefix = tensors.get("token_prefix")
    if context.shape[1] != width or (prefix is not None and not _starts_alike(prefix, tuning)):
        raise CheckpointError(
            f"{file.name} was learnt with another model than {start.cache.model!r}: its context is of width "
            f"{context.shape[1]} beside {width}, or its token for the start is another; build the cache with that model"
        )
    with torch.no_grad():
        tuning.learned["context"].copy_(context)  # type: ignore[index]
    facts = {"file": file.name, "context": len(context), "class_name": "behind the context"}
    return TunedFile("coop", tuning, facts)


def _starts_alike(prefix: Tensor, tuning: CoOp) -> bool:
    """Tells whether a checkpoint's embedded first token is that of the model; half precision keeps three digits."""
    own = tuning.embedding.weight[tuning.tokens[0, 0]]
    alike = prefix.ndim == 3 and prefix.numel() > 0 and prefix.shape[-1] == len(own)
    return alike and torch.allclose(prefix[0, 0].float(), own, rtol=2e-3, atol=1e-5)


def _clip_lora(file: Path, content: Mapping[str, Any], start: Start) -> TunedFile:
    about, layers = _described(file, content["metadata"]), content["weights"]
    model = start.load_model()
    if not uses_quick_gelu(model.model):
        raise CheckpointError(
            f"{file.name} is CLIP-LoRA's and belongs to OpenAI's weights with QuickGELU; {model.name!r} computes GELU: "
            "build the cache with pretrained: openai"
        )
    attentions = _attentions(file, model, about)
    if not isinstance(layers, Mapping):
        _refuse(file, "has no layers by name")
    if len(attentions) != len(layers):
        raise CheckpointError(
            f"{file.name} has {len(layers)} layers, but position {about['position']!r} of encoder {about['encoder']!r} "
            f"is {len(attentions)} blocks of {model.name!r}; build the cache with the model that was tuned"
        )
    factor, changes = about["alpha"] / math.sqrt(about["r"]), {}
    for number, attention in enumerate(attentions):
        for part, (down, up) in _factors(file, layers, f"layer_{number}").items():
            change = factor * up.float() @ down.float()
            changes[f"layer_{number}_{part}"] = change
            _fold(file, attention, part, change)
    facts = {"file": file.name, "sha256": sha256_of(changes), **{key: about[key] for key in ("r", "alpha", "encoder")}}
    return TunedFile("clip_lora", FoldedModel(start, model, changes), facts)


def _described(file: Path, about: Any) -> Mapping[str, Any]:
    """Checks what the file says of itself."""
    found = about if isinstance(about, Mapping) else {}
    numbers = all(isinstance(found.get(key), int | float) for key in ("r", "alpha")) and found["r"] > 0
    towers = found.get("encoder") in ("text", "vision", "both")
    if not (numbers and towers and isinstance(found.get("position"), str)):
        _refuse(file, f"says of itself {shown(about)}, not r above 0, alpha, encoder and position as CLIP-LoRA does")
    return found


def _factors(file: Path, layers: Mapping[str, Any], layer: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns the two factors of each part of a layer that was changed."""
    found = {}
    for part, pair in layers[layer].items() if isinstance(layers.get(layer), Mapping) else [("", {})]:
        down, up = (pair.get(key) if isinstance(pair, Mapping) else None for key in ("w_lora_A", "w_lora_B"))
        if not (
            part in (*_PARTS, "proj")
            and isinstance(down, Tensor)
            and isinstance(up, Tensor)
            and down.ndim == up.ndim == 2
            and up.shape[1] == down.shape[0]
        ):
            _refuse(file, f"has no two factors w_lora_A and w_lora_B of {shown(part)} in {layer!r}")
        found[part] = (down, up)
    return found


def _attentions(file: Path, model: ImageTextModel, about: Mapping[str, Any]) -> list[nn.MultiheadAttention]:
    """Returns the attention layers that were tuned, text blocks first."""
    text = getattr(model.model, "transformer", None) or getattr(getattr(model.model, "text", None), "transformer", None)
    towers = {"text": text, "vision": getattr(model.model.visual, "transformer", None)}
    found = []
    for name, tower in towers.items():
        if about["encoder"] not in (name, "both"):
            continue
        if tower is None or about["position"] not in _BLOCKS:
            _refuse(file, f"names blocks {about['position']!r} of the {name} tower, which {model.name!r} has not")
        blocks = tower.resblocks
        # Of the image tower of ViT-L/14, with 24 blocks, "all" leaves out the last three.
        large = name == "vision" and about["position"] == "all" and len(blocks) == 24
        found += [blocks[k].attn for k in (range(21) if large else _BLOCKS[about["position"]]) if k < len(blocks)]
    return found


@torch.no_grad()
def _fold(file: Path, attention: nn.MultiheadAttention, part: str, change: Tensor) -> None:
    """Adds a change to the weights of queries, keys, values or the output; open_clip stacks the first three."""
    whole = attention.out_proj.weight if part == "proj" else attention.in_proj_weight
    weight = whole if part == "proj" else whole.chunk(3)[_PARTS.index(part)]
    if weight.shape != change.shape:
        raise CheckpointError(
            f"{file.name}: {part} changes {tuple(change.shape)}, but the model's is {tuple(weight.shape)}; build the "
            "cache with the model that was tuned"
        )
    weight += change


def _refuse(file: Path, why: str) -> NoReturn:
    raise CheckpointError(f"{file.name} {why}; {_CURE}")


def _no_labels() -> NoReturn:
    raise ConfigError("a model from a file is tuned already; no labelled image is read")
