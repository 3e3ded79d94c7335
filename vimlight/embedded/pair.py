"""The shipped pair of image-text models: open_clip models with the image towers of `vimlight.embedded.towers`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import safe_open
from safetensors.torch import load_file

from vimlight.embedded.towers import IMAGE_SIZE, MEAN, STD, weights_path
from vimlight.errors import CheckpointError, unknown_name

__all__ = ["PAIR_MODELS", "create_pair_model", "load_pair_model", "pair_card", "pair_tokenizer"]

PAIR_MODELS = ("vit_scenes_small", "vit_scenes_base")
_CONTEXT_LENGTH = 16
_EMBED_DIM = 128


def pair_tokenizer() -> open_clip.SimpleTokenizer:
    """Returns the tokeniser of both models: byte pairs learnt from captions and class names, 16 tokens a text."""
    return open_clip.SimpleTokenizer(
        bpe_path=str(Path(__file__).parent / "weights" / "merges.txt.gz"), context_length=_CONTEXT_LENGTH
    )


def create_pair_model(name: str) -> open_clip.CustomTextCLIP:
    """Builds one model of the pair with random weights.

    Args:
        name: One of `PAIR_MODELS`, which is also the timm name of the image tower.

    Raises:
        UnknownNameError: If there is no model of that name.
    """
    if name not in PAIR_MODELS:
        raise unknown_name("pair model", name, PAIR_MODELS)
    vision = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": IMAGE_SIZE}
    text = {
        "context_length": _CONTEXT_LENGTH,
        "vocab_size": pair_tokenizer().vocab_size,
        "width": 128,
        "heads": 4,
        "layers": 2,
    }
    return open_clip.CustomTextCLIP(_EMBED_DIM, vision, text)


def load_pair_model(
    name: str,
) -> tuple[open_clip.CustomTextCLIP, open_clip.SimpleTokenizer, Callable[[Any], torch.Tensor]]:
    """Loads one model of the pair with its packaged weights.

    Args:
        name: One of `PAIR_MODELS`.

    Returns:
        The model in evaluation mode (float32), its tokeniser (list of texts -> `(N, 16)` int64) and its
        preprocessing (PIL image -> `(3, 64, 64)` float32).

    Raises:
        UnknownNameError: If there is no model of that name.
        CheckpointError: If the packaged weights are missing or do not fit.
    """
    model = create_pair_model(name)
    path = _existing_weights(name)
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} does not fit {name}: {error}") from error
    preprocess = PreprocessCfg(size=IMAGE_SIZE, mean=MEAN, std=STD, resize_mode="squash")
    return model.eval(), pair_tokenizer(), image_transform_v2(preprocess, is_train=False)


def pair_card(name: str) -> dict[str, Any]:
    """Returns what the weights file says of itself: data, recipe, accuracy, licence, library versions.

    Raises:
        CheckpointError: If the packaged weights are missing.
    """
    with safe_open(_existing_weights(name), "pt") as file:
        card: dict[str, Any] = json.loads(file.metadata()["card"])
    return card


def _existing_weights(name: str) -> Path:
    path = weights_path(name)
    if not path.is_file():
        raise CheckpointError(f"the weights of {name!r} are not in this installation (expected {path}); reinstall it")
    return path
