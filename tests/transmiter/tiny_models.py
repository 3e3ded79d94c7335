"""Tiny open_clip models in the format of `local-dir:`."""

from __future__ import annotations

import json

import open_clip
import torch
from safetensors.torch import save_file

SIZE = 32


def write_open_clip(folder, *, sigmoid=False, resize_mode="shortest", seed=0, quick_gelu=False, layers=(1, 1)):
    """Writes config and random weights of a model with so many layers of text and images; returns its name."""
    vision = {"image_size": SIZE, "layers": layers[1], "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": layers[0]}
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    if quick_gelu:
        model |= {"quick_gelu": True}
    if sigmoid:
        model |= {"init_logit_bias": -10.0, "init_logit_scale": 2.0, "custom_text": True}
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "resize_mode": resize_mode, "size": SIZE}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = open_clip.CustomTextCLIP if sigmoid else open_clip.CLIP
        made = kind(**{key: value for key, value in model.items() if key != "custom_text"})
    save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
