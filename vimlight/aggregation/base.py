"""What every aggregator shares: a frozen backbone, a frozen zoo, and the few numbers that are learned."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Backbone, Features, Site, check_readout
from vimlight.errors import ConfigError, PluginError, unknown_name
from vimlight.plugins import Plugin, Slot, Unit
from vimlight.plugins.attachment import check_fit

__all__ = ["Aggregate", "Mixture", "aggregate", "list_aggregators"]

# Sharpness of the gates made from a ranking: 0 is equal shares, the last nearly all for the best module. Sharper still,
# and the softmax would be flat: training could not move it.
_SHARPNESS = (0.0, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """A sum of units of one type at one site, with gates that are the same for every image.

    Attributes:
        site: The site.
        units: The units, K of them.
        gates: Their factors, `(K,)`.
    """

    site: Site
    units: tuple[Unit, ...]
    gates: Tensor


class Aggregate(nn.Module):
    """A backbone with a frozen zoo: images in, features out.

    The modules are copied: neither does an aggregate freeze what it was given, nor does training that goes on change
    it.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules, K of them.
        names: Their names, for tables and plots; numbers if left out.
        readout: What is read out; see `Backbone.forward`.
        extra_module: A fresh plug-in that is trained beside the zoo, always at full strength; it is not copied.

    Attributes:
        backbone: The backbone.
        names: Names of the modules.
        readout: What is read out.
        gating: The learned part, a module with few parameters or none.
        extra: The fresh plug-in or nothing.
        streams: How many passes through the backbone one image takes.
        strengths: Which strengths of the zoo as a whole are worth trying at the start; 1 alone where none is learned.

    Raises:
        PluginError: If there are no modules, or one has a site that the backbone lacks.
        FingerprintError: If a module belongs to another backbone.
        ConfigError: If there are not as many names as modules.
    """

    needs_modules: ClassVar[bool] = True
    gating: nn.Module

    def __init__(
        self,
        backbone: Backbone,
        modules: Sequence[Plugin],
        *,
        names: Sequence[str] | None = None,
        readout: str = "last",
        extra_module: Plugin | None = None,
    ) -> None:
        super().__init__()
        if self.needs_modules and not modules:
            raise PluginError("there is nothing to aggregate: the list of modules is empty")
        check_readout(readout)
        for module in [*modules, *([extra_module] if extra_module is not None else [])]:
            check_fit(backbone, module)
        self.backbone = backbone
        self.names = list(names) if names is not None else [str(number) for number in range(len(modules))]
        if len(self.names) != len(modules):
            raise ConfigError(f"{len(modules)} modules need as many names, got {len(self.names)}")
        self.readout = readout
        self.extra = extra_module
        self.gating = nn.Module()
        # In a tuple: each aggregator decides what of the zoo is part of the model.
        self.modules_in_zoo = tuple(copy.deepcopy(module).requires_grad_(False).eval() for module in modules)
        self.streams = 1
        self.strengths: tuple[float, ...] = (1.0,)

    def forward(self, images: Tensor) -> Features:
        """Computes features `(N, D)`, or a list of maps, of images `(N, 3, H, W)`; see `Backbone.forward`."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    @property
    def gates(self) -> Tensor:
        """The share of each module at each place, `(places, K)`."""
        raise NotImplementedError(f"{type(self).__name__} defines no gates")

    @property
    def places(self) -> list[str]:
        """Names of the rows of `gates`."""
        raise NotImplementedError(f"{type(self).__name__} defines no places")

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns what is optimised, saved and restored: the gating and the fresh plug-in, by name."""
        return {"gating": self.gating, **({"extra": self.extra} if self.extra is not None else {})}

    def starts(self, merit: Tensor) -> list[Tensor]:
        """Returns from which scores it is worth trying to start, of which the least leave-one-out error decides.

        Args:
            merit: How well each module does alone, in standard deviations of the modules, `(K,)`; more is better.
        """
        return [merit * sharpness for sharpness in (_SHARPNESS if len(merit) > 1 else (0.0,))]

    def start_from(self, scores: Tensor) -> None:
        """Starts the learned part from a ranking of the single modules, where it can.

        Args:
            scores: One score a module, `(K,)`: logarithms of the wanted shares, up to a constant.
        """

    def scale_to(self, strength: float) -> None:
        """Starts the strength of the zoo as a whole, where it is learned.

        Args:
            strength: One of `strengths`.
        """

    def penalty(self) -> Tensor:
        """Returns what is added to the loss to keep the learned part near its start: a scalar."""
        return torch.zeros((), device=next(self.backbone.parameters()).device)

    def mixtures(self) -> list[Mixture] | None:
        """Returns all that is added to the backbone, in order, where it is the same for every image and in one pass.

        Returns:
            The sums, the fresh plug-in's among them; nothing for an aggregator that is not of this kind.
        """
        return None

    def extra_mixtures(self) -> list[Mixture]:
        """Returns the fresh plug-in's units, each alone at full strength; none without one."""
        return [] if self.extra is None else alone(self.extra)

    def num_features(self) -> int:
        """Returns the width of the features."""
        return self.streams * self.backbone.num_features(self.readout)

    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Returns the shape of one image's features, `[(D,)]` or `(C, H, W)` of each map.

        Where heads see the streams apart, it is that of one stream.
        """
        return self.backbone.feature_shapes(self.readout)

    def attached(self) -> list[Plugin]:
        """Returns every plug-in that takes part in a pass, the fresh one included."""
        return [*self.modules_in_zoo, *([self.extra] if self.extra is not None else [])]

    def stream_names(self) -> list[str]:
        """Returns names of whole passes that depend on nothing that is learned; see `KeptImages.recall`."""
        return []

    def extra_slots(self) -> list[Slot]:
        """Returns the fresh plug-in's slots, none without one."""
        if self.extra is None:
            return []
        kind = self.extra.unit_type
        return [Slot(site, kind.reads, kind.writes, self.extra.unit(site)) for site in self.extra.sites]


def alone(plugin: Plugin) -> list[Mixture]:
    """Returns the units of a plug-in, each alone at full strength.

    Args:
        plugin: The plug-in.
    """
    gate = torch.ones(1, device=next(plugin.parameters()).device)
    return [Mixture(site, (plugin.unit(site),), gate) for site in plugin.sites]


class SoftmaxLogits(nn.Module):
    """Learned logits whose softmax shares out each row among the modules; equal shares at the start.

    Args:
        rows: Number of rows.
        count: Number of modules, K.
    """

    def __init__(self, rows: int, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(rows, count))

    def shares(self) -> Tensor:
        """Returns the shares `(rows, K)`; each row sums to 1."""
        return self.logits.softmax(dim=1)

    @torch.no_grad()
    def start_from(self, scores: Tensor) -> None:
        """Sets every row of the logits to the scores `(K,)`."""
        self.logits.copy_(scores.expand_as(self.logits))


def aggregate(
    backbone: Backbone,
    modules: Sequence[Plugin],
    how: str = "ens_moe",
    *,
    names: Sequence[str] | None = None,
    readout: str = "last",
    extra_module: Plugin | None = None,
    **settings: Any,
) -> Aggregate:
    """Aggregates a zoo for one downstream task.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules; they are copied and not changed.
        how: Name of the aggregator; see `list_aggregators`.
        names: Names of the modules.
        readout: `"last"` for the backbone's own feature, `"layers"` for that and the mean of every block's output,
            `"grid"` for that and the means over the four quarters of the image, `"maps"` for maps of four blocks.
        extra_module: A fresh plug-in that is trained beside the zoo.
        **settings: Settings of the aggregator, such as `top_k=2`.

    Returns:
        A module that maps images `(N, 3, H, W)` to features `(N, D)`, or to a list of maps, with `gates` of shape
        `(places, K)`.

    Raises:
        UnknownNameError: If the aggregator or a setting does not exist.
        FingerprintError: If a module belongs to another backbone.
        PluginError: If the aggregator cannot take these modules.
    """
    kind = AGGREGATORS[how]
    parameters = [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY]
    valid = [name for name in parameters if name not in ("names", "readout", "extra_module")]
    for name in settings:
        if name not in valid:
            raise unknown_name(f"setting of aggregator {how!r}", name, valid)
    model = kind(backbone, modules, names=names, readout=readout, extra_module=extra_module, **settings)
    return model.to(next(backbone.parameters()).device)


def list_aggregators() -> list[str]:
    """Lists the names of all aggregators."""
    return list(AGGREGATORS)
