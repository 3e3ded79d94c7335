"""The image towers of the shipped image-text pair, registered with timm.

Both are plain vision transformers of timm behind timm's convolutional stem of stride 8 [Xiao et al. 2021, "Early
convolutions help transformers see better"]: 64x64 pixels become 8x8 tokens. Their weights are the image part of the
pair's one file in this package, so `timm.create_model("vit_scenes_small", pretrained=True)` needs no network.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from timm.layers import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn

__all__ = ["IMAGE_SIZE", "MEAN", "STD", "vit_scenes_base", "vit_scenes_small", "weights_path"]

IMAGE_SIZE = 64
MEAN = (0.5, 0.5, 0.5)
STD = (0.3, 0.3, 0.3)
_PREFIX = "visual.trunk."


def weights_path(name: str) -> Path:
    """Returns where the weights of a pair lie, whether or not the file exists."""
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def _default_cfg(name: str) -> dict[str, Any]:
    return {
        "file": str(weights_path(name)),
        "num_classes": 0,
        "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
        "fixed_input_size": True,
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
        "first_conv": "patch_embed.backbone.0.conv",
        "classifier": "head",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {f"{name}.scenes": _default_cfg(name) for name in ("vit_scenes_small", "vit_scenes_base")}
)


def _image_tower(state: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
    """Takes the image tower's tensors from the file of a pair, fitted to the model's grid of tokens."""
    tower = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    return dict(checkpoint_filter_fn(tower, model))


def _create(name: str, pretrained: bool, width: int, depth: int, heads: int, arguments: dict[str, Any]) -> nn.Module:
    # Two stages of two convolutions each before the last one: corners and textures are learnt much sooner.
    channels = (width // 4, width // 4, width // 2, width // 2, width)
    stem = ConvStem(arguments.get("in_chans", 3), 5, channels, stride=(2, 1, 2, 1, 2), act_layer=nn.GELU)
    settings: dict[str, Any] = {
        "img_size": IMAGE_SIZE,
        "patch_size": 1,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "num_classes": 0,
        "class_token": False,
        "global_pool": "avg",
        "embed_layer": partial(HybridEmbed, backbone=stem, proj=False),
    }
    model: nn.Module = build_model_with_cfg(
        VisionTransformer,
        name,
        pretrained,
        pretrained_filter_fn=_image_tower,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **{**settings, **arguments},
    )
    return model


@register_model
def vit_scenes_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Vision transformer of width 96 and depth 6 for 64x64 images, trained on drawn scenes and captions."""
    return _create("vit_scenes_small", pretrained, 96, 6, 3, kwargs)


@register_model
def vit_scenes_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Vision transformer of width 192 and depth 6 for 64x64 images, trained on drawn scenes and captions."""
    return _create("vit_scenes_base", pretrained, 192, 6, 6, kwargs)
