"""The frozen backbone and its factory."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

import vimlight.embedded  # noqa: F401  (registers the embedded image towers with timm)
from vimlight.backbone.preprocessing import Preprocessing
from vimlight.backbone.readout import READOUTS, tap_blocks
from vimlight.backbone.sites import Site, Sites, find_sites
from vimlight.backbone.weights import fingerprint_of, first_line, load_weights
from vimlight.errors import BackboneError, unknown_name

__all__ = ["Backbone", "create_backbone"]

_REMOTE = ("hf-hub:", "hf_hub:", "local-dir:")


class Backbone(nn.Module):
    """A timm model that is frozen for ever: no gradient, always in eval mode, its weights never written.

    Args:
        model: The timm model; it is switched to eval mode and its parameters stop requiring gradients.
        name: The name it was created by.
        preprocessing: What it expects of its images.

    Attributes:
        model: The timm model.
        name: The name it was created by.
        preprocessing: What it expects of its images.

    Raises:
        BackboneError: If the model does not run on images of that size, or no place for plug-ins is found.
    """

    def __init__(self, model: nn.Module, name: str, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.preprocessing = preprocessing
        for parameter in model.parameters():
            parameter.requires_grad = False
        self.train()
        _call_fused_layers(model)
        self._sites = _sites(model, name, preprocessing.size)
        if not self._sites.blocks:
            children = ", ".join(f"{child} ({type(module).__name__})" for child, module in model.named_children())
            raise BackboneError(f"{name!r} has no blocks that plug-ins can attach to; its parts are: {children}")

    def forward(self, images: Tensor, readout: str = "last") -> Tensor:
        """Computes features.

        Args:
            images: Preprocessed images, `(N, 3, H, W)`.
            readout: `"last"` for the model's own feature, `"layers"` for that and the mean of every block's output,
                `"grid"` for that and the means of every block's output over the four quarters of the image.

        Returns:
            Features `(N, D)`; see `num_features` for `D`.
        """
        if readout not in READOUTS:
            raise unknown_name("readout", readout, READOUTS)
        # Convolutions of few channels run about twice as fast on images whose channels come last in memory.
        images = images.contiguous(memory_format=torch.channels_last)
        if not READOUTS[readout]:
            return cast(Tensor, self.model(images))
        with tap_blocks(self.model, self.blocks, READOUTS[readout]) as pooled:
            last = self.model(images)
        return torch.cat([last, *pooled], dim=1)

    def train(self, mode: bool = True) -> Backbone:
        """Keeps every part in eval mode, whatever is asked."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Backbone:
        """Refuses to unfreeze.

        Raises:
            BackboneError: If gradients are asked for.
        """
        if requires_grad:
            raise BackboneError("the backbone is frozen for ever; train a plug-in instead")
        return self

    @property
    def sites(self) -> tuple[Site, ...]:
        """The attention and MLP branches of transformer blocks; the blocks of models that have no such branches."""
        return self._sites.branches or self._sites.blocks

    @property
    def blocks(self) -> tuple[Site, ...]:
        """The residual blocks, in the order of the forward pass."""
        return self._sites.blocks

    @property
    def all_sites(self) -> Sites:
        """Every branch, block and layer that a plug-in can attach to."""
        return self._sites

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the frozen weights and the preprocessing, computed once; modules carry it."""
        return self.compute_fingerprint()

    def compute_fingerprint(self) -> str:
        """Computes the fingerprint from the weights as they are now."""
        return fingerprint_of(self.model, self.preprocessing)

    def num_features(self, readout: str = "last") -> int:
        """Returns the width of the features.

        Args:
            readout: As in `forward`.
        """
        first = next(self.model.parameters())
        with torch.no_grad():
            image = torch.zeros(1, 3, *self.preprocessing.size, device=first.device, dtype=first.dtype)
            return int(self(image, readout).shape[1])


def _call_fused_layers(model: nn.Module) -> None:
    """Makes attention call its `qkv` layer where it would use the weight without a call, which hooks need."""
    for module in model.modules():
        if hasattr(module, "qkv_bias_separate"):
            vars(module)["qkv_bias_separate"] = True


def create_backbone(
    name: str, pretrained: bool = False, checkpoint: str | None = None, **timm_arguments: Any
) -> Backbone:
    """Creates a frozen backbone.

    Args:
        name: A timm model name; `hf-hub:owner/model` and `local-dir:path` are understood as timm does.
        pretrained: Whether timm loads its weights, from the hub or, for embedded models, from this package.
        checkpoint: Weights from a `.safetensors` file, a file of plain tensors, or `package:NAME` for the weight file
            of an installed package; instead of `pretrained`.
        **timm_arguments: Passed on to `timm.create_model`. The classifier is left out unless `num_classes` says
            otherwise. `img_size` is understood for every model: one that takes any size has it as its input size.

    Returns:
        The backbone, in eval mode.

    Raises:
        UnknownNameError: If timm knows no model of that name.
        BackboneError: If the weights cannot be had or do not fit, or the model offers no place for plug-ins.
    """
    if pretrained and checkpoint is not None:
        raise BackboneError("give either pretrained=True or checkpoint=..., not both")
    if not name.startswith(_REMOTE) and not timm.is_model(name):
        raise unknown_name("backbone", name, timm.list_models())
    img_size = timm_arguments.get("img_size")
    model = _create(name, pretrained, {"num_classes": 0, **timm_arguments})
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return Backbone(model, name, Preprocessing.of(model, img_size))


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except TypeError as error:
        if "img_size" in arguments and "img_size" in str(error):
            return _create(name, pretrained, {key: value for key, value in arguments.items() if key != "img_size"})
        raise BackboneError(f"timm refuses the arguments of {name!r}: {error}") from error
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        hint = " (without a network, use checkpoint=FILE or checkpoint='package:NAME')" if pretrained else ""
        raise BackboneError(f"{name!r} could not be created: {first_line(error)}{hint}") from error


def _sites(model: nn.Module, name: str, size: tuple[int, int]) -> Sites:
    try:
        return find_sites(model, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BackboneError(
            f"{name!r} does not run on images (3, {size[0]}, {size[1]}): {first_line(error)}"
        ) from error
