"""The backbone of the released layout: a CLIP image tower under CLIP's names, and the same tower under timm's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vimlight.backbone import Backbone, Preprocessing, create_backbone
from vimlight.errors import CheckpointError

__all__ = ["Tower", "clip_names", "default_preprocessing", "tower_of"]

_HEAD_WIDTH = 64
# Names that timm knows such towers by; where none has the patches, the first with other sizes.
_NAMES = {
    16: "vit_base_patch16_clip_quickgelu_224",
    32: "vit_base_patch32_clip_quickgelu_224",
    14: "vit_large_patch14_clip_quickgelu_224",
}
_BLOCK = {
    "ln_1.weight": "norm1.weight", "ln_1.bias": "norm1.bias",
    "attn.in_proj_weight": "attn.qkv.weight", "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight", "attn.out_proj.bias": "attn.proj.bias",
    "ln_2.weight": "norm2.weight", "ln_2.bias": "norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight", "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight", "mlp.c_proj.bias": "mlp.fc2.bias",
}  # fmt: skip
_OUTSIDE = {
    "class_embedding": "cls_token", "positional_embedding": "pos_embed", "conv1.weight": "patch_embed.proj.weight",
    "ln_pre.weight": "norm_pre.weight", "ln_pre.bias": "norm_pre.bias",
    "ln_post.weight": "norm.weight", "ln_post.bias": "norm.bias", "proj": "head.weight",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tower:
    """A CLIP image tower, every size read off its tensors.

    Attributes:
        tensors: Its tensors, named as in CLIP.
        width: Channels.
        depth: Number of blocks.
        patch: Pixels along a side of a patch.
        grid: Patches along a side of the image.
        hidden: Hidden units of the MLPs.
        outputs: Width of the projected class token.
        heads: Number of attention heads.
    """

    tensors: dict[str, Tensor]
    width: int
    depth: int
    patch: int
    grid: int
    hidden: int
    outputs: int
    heads: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], heads: int | None = None) -> Tower:
        """Reads the sizes of a tower and checks all of its tensors against them.

        Args:
            tensors: Its tensors, named as in CLIP.
            heads: Number of attention heads; one for every 64 channels if left out.

        Raises:
            CheckpointError: If tensors are missing, too many or of the wrong shape, or the heads share no width.
        """
        matches = (re.match(r"transformer\.resblocks\.(\d+)\.", name) for name in tensors)
        depth = len({found[1] for found in matches if found})
        width = _size(tensors, "class_embedding", 0, 1)
        tokens = _size(tensors, "positional_embedding", 0, 2)
        grid = round(max(tokens - 1, 0) ** 0.5)
        if grid == 0 or grid * grid != tokens - 1:
            raise CheckpointError(
                f"backbone_weights: 'positional_embedding' has {tokens} rows, not one and those of a square of patches"
            )
        hidden = _size(tensors, "transformer.resblocks.0.mlp.c_fc.weight", 0, 2)
        tower = cls(
            dict(tensors), width, depth, _size(tensors, "conv1.weight", 3, 4), grid, hidden,
            _size(tensors, "proj", 1, 2), _checked_heads(width, heads),
        )  # fmt: skip
        tower._check()
        return tower

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape that each tensor of a tower of these sizes has, by its name in CLIP."""
        d, m = self.width, self.hidden
        outside = {
            "class_embedding": (d,), "positional_embedding": (1 + self.grid**2, d), "proj": (d, self.outputs),
            "conv1.weight": (d, 3, self.patch, self.patch),
            "ln_pre.weight": (d,), "ln_pre.bias": (d,), "ln_post.weight": (d,), "ln_post.bias": (d,),
        }  # fmt: skip
        block = {
            "attn.in_proj_weight": (3 * d, d), "attn.in_proj_bias": (3 * d,), "attn.out_proj.weight": (d, d),
            "mlp.c_fc.weight": (m, d), "mlp.c_fc.bias": (m,), "mlp.c_proj.weight": (d, m),
        }  # fmt: skip
        inside = {
            f"transformer.resblocks.{index}.{name}": block.get(name, (d,))
            for index in range(self.depth)
            for name in _BLOCK
        }
        return outside | inside

    @property
    def odd_heads(self) -> int | None:
        """The number of heads, if it is not what it is taken to be where nobody says."""
        return None if self.heads == max(1, self.width // _HEAD_WIDTH) else self.heads

    @property
    def arch(self) -> str:
        """The name by which the released loader knows a tower of these sizes, or one that says them."""
        size = self.image_size
        known = (self.width, self.depth, size) == (768, 12, 224) and self.patch in (16, 32)
        return f"vit_b{self.patch}_{size}" if known else f"vit_w{self.width}_l{self.depth}_p{self.patch}_{size}"

    @property
    def image_size(self) -> int:
        """Pixels along a side of the image."""
        return self.grid * self.patch

    def arguments(self, preprocessing: Preprocessing | None = None, *, projected: bool = True) -> dict[str, Any]:
        """Returns the arguments of `create_backbone` that make a tower of these sizes, plain values all.

        Args:
            preprocessing: What it expects of its images; as the release does if left out.
            projected: Whether the class token is projected.
        """
        looks = preprocessing or default_preprocessing(self.image_size)
        ratio = self.hidden / self.width
        return {
            "name": _NAMES.get(self.patch, _NAMES[16]),
            "img_size": self.image_size,
            "patch_size": self.patch,
            "embed_dim": self.width,
            "depth": self.depth,
            "num_heads": self.heads,
            # timm rounds the product down.
            "mlp_ratio": ratio if int(self.width * ratio) == self.hidden else (self.hidden + 0.5) / self.width,
            "num_classes": self.outputs if projected else 0,
            "pretrained_cfg_overlay": {
                "mean": list(looks.mean),
                "std": list(looks.std),
                "interpolation": looks.interpolation,
                "crop_pct": looks.crop_pct,
                "crop_mode": looks.crop_mode,
            },
        }

    def timm_tensors(self) -> dict[str, Tensor]:
        """Returns the tensors under timm's names; the projection is a classifier there, whose bias is zero."""
        tensors = {}
        for name, tensor in self.tensors.items():
            value = tensor.T if name == "proj" else tensor
            new = _timm_name(name)
            # A batch dimension in front, which timm's tokens have.
            missing = {"cls_token": 2, "pos_embed": 1}.get(new, 0)
            tensors[new] = value[(None,) * missing].contiguous()
        return tensors | {"head.bias": torch.zeros(self.outputs, dtype=self.tensors["proj"].dtype)}

    def build(self, preprocessing: Preprocessing | None = None) -> Backbone:
        """Returns the tower as a frozen backbone, in float32, whose feature is the projected class token.

        Args:
            preprocessing: What it expects of its images; as the release does if left out.
        """
        backbone = _empty(self.arguments(preprocessing))
        backbone.model.load_state_dict(self.timm_tensors())
        return backbone

    def _check(self) -> None:
        shapes = self.shapes()
        for name, shape in shapes.items():
            if name not in self.tensors:
                raise CheckpointError(f"backbone_weights lacks {name!r}")
            if self.tensors[name].shape != shape:
                raise CheckpointError(
                    f"backbone_weights: {name!r} is {tuple(self.tensors[name].shape)}, expected {shape}"
                )
        extra = [name for name in self.tensors if name not in shapes]
        if extra:
            raise CheckpointError(f"backbone_weights has {extra[0]!r}, which a CLIP image tower does not")


def tower_of(backbone: Backbone) -> Tower:
    """Reads a backbone as a tower of the released layout.

    Args:
        backbone: A CLIP image tower of timm; without a projection the layout gets one that changes nothing.

    Raises:
        CheckpointError: If it is anything else.
    """
    refusal = CheckpointError(
        f"{backbone.name!r} is no CLIP image tower with QuickGELU, which alone the released layout holds; "
        f"such as {_NAMES[16]!r}"
    )
    try:
        heads = int(backbone.model.blocks[0].attn.num_heads)  # type: ignore[index, union-attr]  # checked by the except
        tower = Tower.of(clip_names(backbone.model.state_dict()), heads)
    except (CheckpointError, AttributeError, TypeError, IndexError) as error:
        raise refusal from error
    # Names and shapes say nothing of activations and norms; one image does.
    image = torch.randn(1, 3, tower.image_size, tower.image_size, generator=torch.Generator().manual_seed(0))
    bias = backbone.model.state_dict().get("head.bias", torch.zeros(1))
    with torch.no_grad():
        mine = next(backbone.parameters())
        found, expected = backbone(image.to(mine)), tower.build(backbone.preprocessing).to(mine)(image.to(mine))
    if bias.any() or found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-5, atol=1e-5):
        raise refusal
    return tower


def clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a timm tower's tensors under CLIP's names, contiguous on the CPU.

    Args:
        state: The tensors by timm's names; without a projection an identity becomes one.

    Raises:
        CheckpointError: If there is a name that such a tower does not have.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in state.items() if name != "head.bias"}
    if "head.weight" not in tensors and "norm.weight" in tensors:
        tensors["head.weight"] = torch.eye(len(tensors["norm.weight"]), dtype=tensors["norm.weight"].dtype)
    found = {}
    for name, tensor in tensors.items():
        value = tensor.T if name == "head.weight" else tensor
        leading = {"cls_token": 2, "pos_embed": 1}.get(name, 0)
        value = value.reshape(value.shape[leading:]) if leading else value
        found[_clip_name(name)] = value.clone(memory_format=torch.contiguous_format)
    return found


def default_preprocessing(size: int) -> Preprocessing:
    """Returns what the release does to its images: all of each is resized to a square; mean and spread are ImageNet's.

    Args:
        size: Pixels along a side.
    """
    return Preprocessing((size, size), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", 1.0, "squash")


def _empty(arguments: dict[str, Any]) -> Backbone:
    # The initial values are thrown away, so they must not move the global random state.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return create_backbone(**arguments)


def _checked_heads(width: int, heads: int | None) -> int:
    count = heads if heads is not None else max(1, width // _HEAD_WIDTH)
    if not isinstance(count, int) or count < 1 or width % count:
        raise CheckpointError(
            f"{count} attention heads cannot share {width} channels; the layout does not say how many there are: "
            "give heads=N (--heads N)"
        )
    return count


def _size(tensors: Mapping[str, Tensor], name: str, dim: int, dims: int) -> int:
    if name not in tensors:
        raise CheckpointError(f"backbone_weights lacks {name!r}")
    shape = tuple(tensors[name].shape)
    if len(shape) != dims or 0 in shape:
        raise CheckpointError(f"backbone_weights: {name!r} is {shape}, expected {dims} dimensions")
    return shape[dim]


def _timm_name(name: str) -> str:
    found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    return f"blocks.{found[1]}.{_BLOCK[found[2]]}" if found else _OUTSIDE[name]


def _clip_name(name: str) -> str:
    outside = {timm: clip for clip, timm in _OUTSIDE.items()}
    block = {timm: clip for clip, timm in _BLOCK.items()}
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    known = block.get(found[2]) if found else outside.get(name)
    if known is None:
        raise CheckpointError(f"{name!r} is no tensor of a CLIP image tower")
    return f"transformer.resblocks.{found[1]}.{known}" if found else known
