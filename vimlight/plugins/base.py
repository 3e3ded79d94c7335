"""What every plug-in type shares: units at sites, the plug-in that holds them, and the widened form of several."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vimlight.backbone import Backbone, Layout, Preprocessing, Site
from vimlight.errors import PluginError, unknown_name
from vimlight.files.tensor_file import sha256_of
from vimlight.plugins.blocks import Blocks, choose_blocks
from vimlight.plugins.means import mean_of
from vimlight.plugins.registry import PLUGINS

__all__ = ["Plugin", "Tap", "Unit", "WideUnit", "create_plugin", "list_plugins", "widen"]

Tap = Literal["input", "output", "residual"]


class Unit(nn.Module):
    """The parameters of one plug-in at one site: reads a tensor there, returns what is added.

    A subclass sets the class attributes, creates its parameters in `__init__(self, site, **settings)` and defines
    `forward`. It may override `widen` with a fused form and, if the backbone's layer can absorb it, `fold`.

    Args:
        site: Where the unit sits.

    Attributes:
        places: Alternatives of places to attach to, best first; by default each block gets the first that it offers.
        reads: What is read: the site's `"input"`, its `"output"`, or the `"residual"` stream before the site's norm.
            At a whole block it is always the output.
        writes: What is added to: the site's `"output"` or its `"input"`.
        identity_at_start: Whether a new unit changes nothing.
    """

    places: ClassVar[tuple[tuple[str, ...], ...]] = (("attn", "mlp"), ("block",))
    reads: ClassVar[Tap] = "input"
    writes: ClassVar[Literal["input", "output"]] = "output"
    identity_at_start: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added at the site.

        Args:
            x: What `reads` names, in the site's layout.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    @classmethod
    def supports(cls, site: Site) -> bool:
        """Tells whether a unit can sit at this site, beyond its place being among those asked for."""
        return True

    @classmethod
    def widen(cls, units: Sequence[Unit]) -> WideUnit:
        """Returns one module that computes the gated sum of several units at one site.

        Args:
            units: Units of this type at the same site; widths may differ.
        """
        return LoopedUnits(units)

    @classmethod
    def mean(cls, columns: Sequence[Sequence[Unit]]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
        """Returns settings and tensors of units that are the mean of others, which need not be exact.

        By default that of their weights: the mean of what they add where that is linear in them, and otherwise close
        to it for units that hardly differ.

        Args:
            columns: For each site its units, of this type and of equal settings.

        Returns:
            Settings that differ from those of the units, and each site's tensors by name.
        """
        return {}, [mean_of([unit.state_dict() for unit in units]) for units in columns]

    def fold(self, layer: nn.Module) -> None:
        """Adds the unit's effect to a layer's own weights, in place.

        Args:
            layer: The backbone's layer at the unit's site.

        Raises:
            PluginError: If the type is no linear change of a layer.
        """
        raise PluginError(
            f"{type(self).__name__} is not linear and cannot be merged into the backbone; use aggregate()"
        )


class WideUnit(nn.Module):
    """The gated sum of K units at one site.

    Attributes:
        count: The number of units, K.
    """

    count: int

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Returns the sum over k of `gates[..., k] * unit_k(x)`, in a tensor of its own, which may be written to.

        Args:
            x: What the units read, in the site's layout.
            gates: `(K,)`, or `(N, K)` for gates of each image.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def fix(self, gates: Tensor) -> nn.Module:
        """Returns the gated sum for gates that no longer change: a function of what the units read.

        Args:
            gates: `(K,)`.
        """
        return FixedGates(self, gates)


class LoopedUnits(WideUnit):
    """The gated sum, one unit after the other: correct for every type, and the reference of the fused forms.

    Args:
        units: The units to add up.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.count = len(units)
        self.layout = units[0].site.layout

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Returns the gated sum; see `WideUnit.forward`."""
        outputs = (unit(x) for unit in self.units)
        weighted = [output * spread(gates[..., k, None], output, self.layout) for k, output in enumerate(outputs)]
        return torch.stack(weighted).sum(dim=0)


def spread(scales: Tensor, x: Tensor, layout: Layout) -> Tensor:
    """Shapes scales of channels so that they multiply a tensor.

    Args:
        scales: `(C,)`, or `(N, C)` for scales of each image.
        x: The tensor, in `layout`.
        layout: Its layout.

    Returns:
        A view of `scales` that broadcasts over the positions of `x`.
    """
    positions = x.dim() - 2
    batch = scales.shape[:-1] if scales.dim() > 1 else (1,)
    shape = (
        (*batch, scales.shape[-1], *[1] * positions)
        if layout.kind == "NCHW"
        else (*batch, *[1] * positions, scales.shape[-1])
    )
    return scales.reshape(shape)


class Plugin(nn.Module):
    """A plug-in module: one unit per site, all of one type and one setting.

    Args:
        kind: Name of the type in `PLUGINS`.
        sites: Where the units sit.
        settings: Arguments of the type's units; what is left out is filled in with the type's defaults.
        fingerprint: Fingerprint of the backbone it belongs to.
        backbone_name: Name of that backbone, for cards and messages.
        preprocessing: What that backbone expects of its images, for cards and messages.
        block_count: How many blocks that backbone has, for cards and messages.

    Attributes:
        kind: Name of the type.
        settings: Settings of the units, complete.
        fingerprint: Fingerprint of the backbone.
        backbone_name: Name of the backbone.
        preprocessing: Preprocessing of the backbone.
        block_count: How many blocks the backbone has; 0 where that is not known.
        sites: The sites, in order.
    """

    def __init__(
        self,
        kind: str,
        sites: Sequence[Site],
        settings: dict[str, Any],
        fingerprint: str,
        backbone_name: str = "",
        preprocessing: Preprocessing | None = None,
        block_count: int = 0,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.sites = tuple(sites)
        self.fingerprint = fingerprint
        self.backbone_name = backbone_name
        self.preprocessing = preprocessing
        self.block_count = block_count
        unit_type = PLUGINS[kind]
        self.settings = _complete(kind, unit_type, settings)
        self.units = nn.ModuleDict({_key(site.name): unit_type(site, **self.settings) for site in sites})

    @property
    def unit_type(self) -> type[Unit]:
        """The class of the units."""
        return PLUGINS[self.kind]

    def unit(self, site: Site | str) -> Unit:
        """Returns the unit at a site.

        Args:
            site: The site or its name.

        Raises:
            UnknownNameError: If there is no unit at that site.
        """
        name = site if isinstance(site, str) else site.name
        if _key(name) not in self.units:
            raise unknown_name("site", name, (known.name for known in self.sites))
        unit = self.units[_key(name)]
        assert isinstance(unit, Unit)
        return unit

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the sites, in order."""
        return tuple(site.name for site in self.sites)

    @property
    def blocks_reached(self) -> tuple[int, ...]:
        """Numbers of the backbone's blocks in which it has a unit."""
        return tuple(sorted({site.depth for site in self.sites if 0 <= site.depth < self.block_count}))

    @property
    def reach(self) -> str:
        """In how many of the backbone's blocks it has a unit, such as `"12 of 12"`; empty where that is not known."""
        return f"{len(self.blocks_reached)} of {self.block_count}" if self.block_count else ""

    def identity(self) -> str:
        """Returns a SHA-256 over what the plug-in is and over its tensors: equal for copies, whatever their names."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        about = f"{self.kind} {sorted(self.settings.items())} {self.site_names} {sha256_of(tensors)}"
        return hashlib.sha256(about.encode()).hexdigest()

    def extra_repr(self) -> str:
        """Returns the type, its settings and the blocks that it reaches for `repr`."""
        blocks = f", blocks={self.reach!r}" if self.reach else ""
        return f"{self.kind!r}, settings={self.settings}{blocks}"


def create_plugin(
    kind: str, backbone: Backbone, *, places: Sequence[str] | None = None, blocks: Blocks = "all", **settings: Any
) -> Plugin:
    """Creates a plug-in for a backbone, and warns if it reaches fewer blocks than asked for.

    Args:
        kind: Name of the type; see `list_plugins`.
        backbone: The backbone whose sites it is for.
        places: Roles of the sites, such as `["attn", "mlp"]` or `["q", "v"]`; if left out, each block gets the first of
            the type's alternatives that it offers.
        blocks: `"all"`, `"last:n"` or `"first:n"`, or the indices of blocks.
        **settings: Settings of the type, such as `hidden=8`.

    Returns:
        The plug-in, on the backbone's device.

    Raises:
        UnknownNameError: If the type or a setting does not exist.
        PluginError: If the backbone has no such place or no such block.
    """
    depths = choose_blocks(blocks, len(backbone.blocks))
    # Layers outside the blocks (patch embedding, last norm) belong to a plug-in of the whole model alone.
    outside = {-1, len(backbone.blocks)} if blocks == "all" else set()
    sites = [site for site in choose_sites(kind, backbone, places) if site.depth in depths | outside]
    if not sites:
        raise PluginError(f"plug-in {kind!r} finds no site in blocks {blocks!r} of {backbone.name!r}")
    plugin = Plugin(
        kind,
        sites,
        settings,
        backbone.fingerprint,
        backbone.name,
        backbone.preprocessing,
        len(backbone.blocks),
    )
    missed = sorted(depths.difference(plugin.blocks_reached))
    if missed:
        warnings.warn(
            f"plug-in {kind!r} reaches {len(depths) - len(missed)} of {len(depths)} blocks of {backbone.name!r}; "
            f"it finds no place in {backbone.blocks[missed[0]].name!r}",
            stacklevel=2,
        )
    return plugin.to(next(backbone.parameters()).device)


def choose_sites(kind: str, backbone: Backbone, places: Sequence[str] | None = None) -> list[Site]:
    """Returns the sites that a plug-in of a type has in all blocks of a backbone and outside them.

    Args:
        kind: Name of the type.
        backbone: The backbone.
        places: Roles of the sites; if left out, each block gets the first of the type's alternatives that it offers.

    Raises:
        UnknownNameError: If the type or a place does not exist.
        PluginError: If the backbone has none of the type's places.
    """
    unit_type = PLUGINS[kind]
    offered = [site for site in backbone.all_sites if unit_type.supports(site)]
    available = {site.place for site in offered}
    for place in places or ():
        if place not in available:
            raise unknown_name(f"place of {kind!r} in {backbone.name!r}", place, available)
    alternatives = unit_type.places if places is None else (places,)
    sites = [site for site in offered if site.place in _first_offered(alternatives, offered, site.depth)]
    if not sites:
        wanted = [place for alternative in alternatives for place in alternative]
        raise PluginError(f"plug-in {kind!r} looks for {wanted}, but {backbone.name!r} offers only {sorted(available)}")
    return sites


def _first_offered(alternatives: Sequence[Sequence[str]], offered: Sequence[Site], depth: int) -> Sequence[str]:
    here = {site.place for site in offered if site.depth == depth}
    return next((alternative for alternative in alternatives if here.intersection(alternative)), ())


def list_plugins() -> list[str]:
    """Lists the names of all plug-in types."""
    return list(PLUGINS)


def widen(plugins: Sequence[Plugin], gates: Tensor, site: Site | str) -> nn.Module:
    """Returns the gated sum of several plug-ins at one site as one fused function of its input.

    Args:
        plugins: Plug-ins of one type that all have a unit at the site; widths may differ.
        gates: One gate a plug-in, `(K,)`.
        site: The site or its name.

    Returns:
        A module that maps what the units read to the sum over k of `gates[k] * unit_k(x)`.

    Raises:
        PluginError: If the types differ, or there are not as many gates as plug-ins.
    """
    if gates.shape != (len(plugins),) or not plugins:
        raise PluginError(f"{len(plugins)} plug-ins need as many gates and at least one; got {tuple(gates.shape)}")
    kinds = {plugin.kind for plugin in plugins}
    if len(kinds) != 1:
        raise PluginError(f"only plug-ins of one type widen into one; found {sorted(kinds)}")
    return plugins[0].unit_type.widen([plugin.unit(site) for plugin in plugins]).fix(gates)


class FixedGates(nn.Module):
    """A widened unit with gates that no longer change.

    Args:
        wide: The unit.
        gates: `(K,)`.
    """

    def __init__(self, wide: WideUnit, gates: Tensor) -> None:
        super().__init__()
        self.wide = wide
        self.register_buffer("gates", gates)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the gated sum of what the units make of `x`."""
        output: Tensor = self.wide(x, self.gates)
        return output


def _complete(kind: str, unit_type: type[Unit], settings: dict[str, Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(unit_type).parameters.values())[1:]
    defaults = {parameter.name: parameter.default for parameter in parameters}
    for name in settings:
        if name not in defaults:
            raise unknown_name(f"setting of plug-in {kind!r}", name, defaults)
    return {**defaults, **settings}


def _key(site: str) -> str:
    # A module's name may not contain dots.
    return site.replace(".", "/")
