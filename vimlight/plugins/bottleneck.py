"""The bottleneck that most plug-in types are: down to a few hidden units, and back up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vimlight.backbone import Layout, Site
from vimlight.errors import PluginError
from vimlight.plugins.base import Unit, WideUnit, spread

__all__ = ["Bottleneck", "WideBottleneck", "convolve", "linear", "pointwise"]

_IN_PLACE: dict[Any, Callable[[Tensor], Tensor]] = {
    F.silu: partial(F.silu, inplace=True),
    F.relu: partial(F.relu, inplace=True),
}


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, layout: Layout) -> Tensor:
    """Applies one linear map to every position.

    Args:
        x: A tensor of `C` channels in `layout`.
        weight: `(O, C)`.
        bias: `(O,)` or nothing.
        layout: Layout of `x`.

    Returns:
        A tensor of `O` channels in `layout`.
    """
    if layout.kind == "NCHW":
        return F.conv2d(x, weight[:, :, None, None], bias)
    return linear(x, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Applies one linear map to the last dimension, as `F.linear` does.

    Args:
        x: `(..., C)`.
        weight: `(O, C)`.
        bias: `(O,)` or nothing.
    """
    if x.dim() != 3 or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    # On a CPU a 1x1 convolution over a row of pixels, of which tokens are a view, is oneDNN's, and about twice as fast
    # for few channels as the product of the linear algebra library.
    pixels, kernel = x.transpose(1, 2).unsqueeze(2), weight[:, :, None, None]
    frozen = x.requires_grad and torch.is_grad_enabled() and not weight.requires_grad
    row: Tensor = _FrozenRow.apply(pixels, kernel, bias) if frozen else F.conv2d(pixels, kernel, bias)
    return row.squeeze(2).transpose(1, 2)


class _FrozenRow(torch.autograd.Function):
    """A 1x1 convolution whose weight does not learn, and which need not keep its input, as others do in any case."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(kernel)
        return F.conv2d(pixels, kernel, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        (kernel,) = ctx.saved_tensors
        pixels = F.conv2d(slope, kernel.transpose(0, 1)) if ctx.needs_input_grad[0] else None
        return pixels, None, slope.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None


def convolve(x: Tensor, weight: Tensor, bias: Tensor, layout: Layout) -> Tensor:
    """Applies a grouped 3x3 convolution with zero padding over the patches.

    Each prefix token is convolved alone as a 1x1 image, on which only the kernel's centre acts (ViM's class token).

    Args:
        x: A tensor of `C` channels in `layout`; tokens must be a grid behind the prefix.
        weight: `(C, C / G, 3, 3)` for `G` groups.
        bias: `(C,)`.
        layout: Layout of `x`.

    Raises:
        PluginError: If the tokens are no grid.
    """
    groups = x.shape[layout.channel_dim] // weight.shape[1]
    if layout.kind == "NCHW":
        return F.conv2d(x, weight, bias, padding=1, groups=groups)
    if layout.kind == "NHWC":
        return layout.from_maps(F.conv2d(layout.maps(x), weight, bias, padding=1, groups=groups))
    tokens = layout.tokens(x)
    count = tokens.shape[1] - layout.prefix
    if count != layout.grid[0] * layout.grid[1]:
        raise PluginError(f"{count} patch tokens are no grid of {layout.grid[0]} x {layout.grid[1]}")
    patches = layout.from_maps(F.conv2d(layout.maps(x), weight, bias, padding=1, groups=groups))
    if layout.prefix == 0:
        return patches.reshape(x.shape)
    prefix = tokens[:, : layout.prefix].transpose(1, 2).unsqueeze(2)
    centred = F.conv2d(prefix, weight[:, :, 1:2, 1:2], bias, groups=groups).squeeze(2).transpose(1, 2)
    return torch.cat([centred, patches], dim=1).reshape(x.shape)


class Bottleneck(Unit):
    """Down, activation, optionally a 3x3 convolution and the activation again, up: `s U act(conv(act(D x)))`.

    Subclasses choose the activation, the parts and the initialisation. The down projection is Kaiming-uniform and the
    up projection zero unless they say otherwise: exactly one factor is zero, so that gradients reach both within two
    steps.

    Args:
        site: Where the unit sits.
        hidden: Number of hidden units, h.
        scale: Constant factor of the output, s.
        dropout: Probability with which hidden units are dropped in training.

    Attributes:
        activation: Applied element by element; `None` for none.
    """

    activation: ClassVar[staticmethod[[Tensor], Tensor] | None] = staticmethod(F.gelu)
    conv: nn.Conv2d | None

    def __init__(self, site: Site, hidden: int, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__(site)
        if hidden < 1:
            raise PluginError(f"hidden must be at least 1, got {hidden}")
        self.scale = scale
        self.conv = None
        width = site.width if self.writes == "output" else site.input_width
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @classmethod
    def supports(cls, site: Site) -> bool:
        """Tells whether what is read is as wide as what is written."""
        return (
            site.layout.kind != "NC" and site.part is None and (cls.reads == "output" or site.input_width == site.width)
        )

    @property
    def hidden(self) -> int:
        """The number of hidden units."""
        return self.down.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added, in the layout of `x`."""
        layout = self.site.layout
        hidden = self.activate(pointwise(self.normalise(x), *self.effective_down(), layout))
        if self.conv is not None:
            hidden = self.activate(convolve(hidden, *self.effective_conv(self.conv), layout))
        return pointwise(self.dropout(hidden), *self.effective_up(), layout)

    def normalise(self, x: Tensor) -> Tensor:
        """Prepares the input in a way that is the same for all units at a site."""
        return x

    def effective_down(self) -> tuple[Tensor, Tensor]:
        """Returns weight `(h, d)` and bias `(h,)` of the down projection as applied."""
        return self.down.weight, self.down.bias

    def effective_conv(self, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Returns weight `(h, h, 3, 3)` and bias `(h,)` of the convolution as applied.

        Args:
            conv: The unit's convolution.
        """
        return conv.weight, cast(Tensor, conv.bias)

    def effective_up(self) -> tuple[Tensor, Tensor]:
        """Returns weight `(d, h)` and bias `(d,)` of the up projection as applied, every scale included."""
        if self.scale == 1.0:
            return self.up.weight, self.up.bias
        return self.up.weight * self.scale, self.up.bias * self.scale

    @classmethod
    def widen(cls, units: Sequence[Unit]) -> WideUnit:
        """Returns the fused sum: one down projection, one grouped convolution, one up projection."""
        return WideBottleneck(cast("Sequence[Bottleneck]", units))

    def activate(self, hidden: Tensor) -> Tensor:
        """Applies the activation, if the type has one, element by element."""
        activation = type(self).activation
        return hidden if activation is None else activation(hidden)


class WideBottleneck(WideUnit):
    """K bottlenecks at one site as one: `sum_k g_k U_k act(D_k x) = [U_1 .. U_K] (g * act([D_1; ..; D_K] x))`.

    Exact for every element-wise activation. The convolution is grouped; units of other widths are padded with zeros up
    to the widest, which changes nothing, since the up projection ignores them. The parts are copies, joined once: what
    the units learn later does not reach them.

    Args:
        units: The bottlenecks, all of one type.
    """

    def __init__(self, units: Sequence[Bottleneck]) -> None:
        super().__init__()
        self.count = len(units)
        self.layout = units[0].site.layout
        # Bound methods, not the unit: its parameters are no part of the fused form.
        self._normalise, self._activate = units[0].normalise, units[0].activate
        kind = type(units[0])
        self._in_place = _IN_PLACE.get(kind.activation) if kind.activate is Bottleneck.activate else None
        self._width = max(unit.hidden for unit in units)
        with torch.no_grad():
            downs = [_pad(unit.effective_down(), self._width) for unit in units]
            ups = [unit.effective_up() for unit in units]
            self.register_buffer("down_weight", torch.cat([weight for weight, _ in downs]))
            self.register_buffer("down_bias", torch.cat([bias for _, bias in downs]))
            self.register_buffer(
                "up_weight", torch.cat([F.pad(weight, (0, self._width - weight.shape[1])) for weight, _ in ups], dim=1)
            )
            self.register_buffer("up_bias", torch.stack([bias for _, bias in ups]))
            self._join_convolutions(units)

    def _join_convolutions(self, units: Sequence[Bottleneck]) -> None:
        parts = [unit.effective_conv(unit.conv) for unit in units if unit.conv is not None]
        self.convolves = bool(parts)
        if not parts:
            return
        missing = [self._width - len(bias) for _, bias in parts]
        weights = [F.pad(weight, (0, 0, 0, 0, 0, m, 0, m)) for (weight, _), m in zip(parts, missing, strict=True)]
        self.register_buffer("conv_weight", torch.cat(weights))
        biases = [F.pad(bias, (0, m)) for (_, bias), m in zip(parts, missing, strict=True)]
        self.register_buffer("conv_bias", torch.cat(biases))

    down_weight: Tensor
    down_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    conv_weight: Tensor
    conv_bias: Tensor

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Returns the gated sum; see `WideUnit.forward`."""
        narrow = self._narrow(x)
        scales = self.scales(gates)
        if torch.is_grad_enabled() and (narrow.requires_grad or gates.requires_grad):
            # What lies between the projections is computed again in the backward pass: cheaper than to keep it.
            scaled = checkpoint(self._between, narrow, scales, use_reentrant=False, preserve_rng_state=False)
        elif gates.dim() == 1:
            return pointwise(self._bend(narrow), self.up_weight * scales, gates @ self.up_bias, self.layout)
        else:
            scaled = self._between(narrow, scales)
        if gates.dim() == 1:
            return pointwise(scaled, self.up_weight, gates @ self.up_bias, self.layout)
        output = pointwise(scaled, self.up_weight, None, self.layout)
        return output + spread(gates @ self.up_bias, output, self.layout)

    def fix(self, gates: Tensor) -> nn.Module:
        """Returns the gated sum as one bottleneck, the gates folded into its up projection."""
        return _FixedBottleneck(self, gates)

    def scales(self, gates: Tensor) -> Tensor:
        """Returns the factor of each hidden unit, `(..., K * width)`, for gates `(..., K)`."""
        return gates.repeat_interleave(self._width, dim=-1)

    def hidden(self, x: Tensor) -> Tensor:
        """Returns the hidden units of all K modules side by side, `K * width` channels in the site's layout."""
        return self._bend(self._narrow(x))

    def _narrow(self, x: Tensor) -> Tensor:
        return pointwise(self._normalise(x), self.down_weight, self.down_bias, self.layout)

    def _between(self, narrow: Tensor, scales: Tensor) -> Tensor:
        hidden = self._bend(narrow)
        return hidden * spread(scales, hidden, self.layout)

    def _bend(self, narrow: Tensor) -> Tensor:
        hidden = self._activated(narrow)
        if self.convolves:
            hidden = self._activated(convolve(hidden, self.conv_weight, self.conv_bias, self.layout))
        return hidden

    def _activated(self, fresh: Tensor) -> Tensor:
        return self._activate(fresh) if self._in_place is None or torch.is_grad_enabled() else self._in_place(fresh)


class _FixedBottleneck(nn.Module):
    """A widened bottleneck whose gates are part of its weights."""

    up_weight: Tensor
    up_bias: Tensor

    def __init__(self, wide: WideBottleneck, gates: Tensor) -> None:
        super().__init__()
        # It shares what is not changed: a copy of the whole would copy the unit too that lends its activation.
        self.wide = copy.copy(wide)
        self.wide._buffers = {name: part for name, part in wide._buffers.items() if not name.startswith("up_")}
        self.register_buffer("up_weight", wide.up_weight * wide.scales(gates))
        self.register_buffer("up_bias", gates @ wide.up_bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(self.wide.hidden(x), self.up_weight, self.up_bias, self.wide.layout)


def _pad(pair: tuple[Tensor, Tensor], width: int) -> tuple[Tensor, Tensor]:
    weight, bias = pair
    missing = width - weight.shape[0]
    return F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing))
