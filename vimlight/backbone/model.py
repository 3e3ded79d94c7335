"""The frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from vimlight.backbone.prefix import KeptImages, Prefix, Route, find_route, run_up_to, starts
from vimlight.backbone.preprocessing import Preprocessing
from vimlight.backbone.readout import (
    MAPS,
    READOUTS,
    Features,
    check_readout,
    chosen_blocks,
    map_levels,
    tap_blocks,
    tap_maps,
)
from vimlight.backbone.recomputing import Ledger, computed_again
from vimlight.backbone.site import Site, Sites
from vimlight.backbone.sites import find_sites
from vimlight.backbone.trace import Trace, trace
from vimlight.backbone.weights import fingerprint_of
from vimlight.errors import BackboneError, ConfigError
from vimlight.files.weight_file import first_line

__all__ = ["Backbone"]

_SWITCH = "qkv_bias_separate"


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
        occupied: Depths of the sites that something is attached to at present, one entry for each attachment.
        ledger: Where it is noted at present how tensors are made; see `recomputing`.

    Raises:
        BackboneError: If the model does not run on images of that size, gives no vector for an image, or no place for
            plug-ins is found.
    """

    def __init__(self, model: nn.Module, name: str, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.preprocessing = preprocessing
        for parameter in model.parameters():
            parameter.requires_grad = False
        self.train()
        self._switched = _call_fused_layers(model)
        seen = _trace(model, name, preprocessing.size)
        _check_features(name, seen.features)
        self._sites = find_sites(model, seen)
        self.occupied: list[int] = []
        self.ledger: Ledger | None = None
        self._routes: dict[tuple[int, torch.device, torch.dtype], Route] = {}
        if not self._sites.blocks:
            children = ", ".join(f"{child} ({type(module).__name__})" for child, module in model.named_children())
            raise BackboneError(f"{name!r} has no blocks that plug-ins can attach to; its parts are: {children}")

    def forward(self, images: Tensor | Prefix | KeptImages, readout: str = "last") -> Features:
        """Computes features.

        Args:
            images: Preprocessed images, `(N, 3, H, W)`, or what their first blocks gave; see `prefix`.
            readout: `"last"` for the model's own feature, `"layers"` for that and the mean of every block's output,
                `"grid"` for that and the means of every block's output over the four quarters of the image; `"maps"`
                for the outputs of four blocks or stages as maps, `"maps:3,5,7,11"` for those of these blocks.

        Returns:
            Features `(N, D)`, or a list of maps `(N, C, H, W)`, finest first; see `feature_shapes`.

        Raises:
            UnknownNameError: If there is no such readout.
            BackboneError: If a block that should be read as a map has no grid of positions, or if images have another
                size than the backbone was created for where it matters where tokens lie.
        """
        check_readout(readout)
        if isinstance(images, KeptImages):
            images = images.prefix(readout)
        if isinstance(images, Prefix):
            return self._go_on(images, readout)
        images = self._laid_out(images, readout)
        with self._reading(readout, 0, len(self.blocks)) as read:
            last = self.model(images)
        return self._features(last, read, readout)

    def _laid_out(self, images: Tensor, readout: str) -> Tensor:
        if self.occupied or readout not in ("last", "layers"):
            self._sites.check_size(self.name, (images.shape[-2], images.shape[-1]), self.preprocessing.size)
        # Convolutions of few channels run about twice as fast on images whose channels come last in memory.
        return images.contiguous(memory_format=torch.channels_last)

    def _reading(self, readout: str, first: int, end: int) -> AbstractContextManager[dict[str, Tensor]]:
        """Returns a context that collects what a readout takes from some of the blocks, by the block's name."""
        sites = self.blocks if readout in READOUTS else self.taps(readout)
        sites = [site for site in sites if first <= site.depth < end]
        if readout not in READOUTS:
            return tap_maps(self.model, sites)
        return tap_blocks(self.model, sites, READOUTS[readout]) if READOUTS[readout] else nullcontext({})

    def _features(self, last: Tensor, read: dict[str, Tensor], readout: str) -> Features:
        if readout not in READOUTS:
            return [read[site.name] for site in self.taps(readout)]
        return torch.cat([last, *read.values()], dim=1) if read else last

    @contextmanager
    def recomputing(self, memory: str) -> Iterator[None]:
        """Makes forward passes inside the context keep less for their backward pass, at equal gradients.

        What frozen norms, activations and linear layers made of tensors that are kept is computed again when the
        backward pass asks for it. What is not known of, such as a convolution's input, is kept as ever. So is all in a
        compiled model, for which `torch.compile` decides.

        Args:
            memory: `"plain"` to keep all that autograd asks for. `"light"` to keep of each transformer block the stream
                at its start, queries, keys, values, attention's output, and the MLP's where a plug-in reads it: a half
                to a third, for about a quarter more time. `"lean"` to keep the stream and attention's output alone, and
                to compute all products but attention's own again: a fifth to a seventh, for about a third more time.

        Raises:
            UnknownNameError: If `memory` is none of these.
        """
        places = computed_again(memory)
        if not places or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            yield
            return
        with Ledger.of(self.model, self._sites, places) as self.ledger:
            try:
                yield
            finally:
                self.ledger = None

    @torch.no_grad()
    def prefix(self, images: Tensor, depth: int, readout: str = "last") -> Prefix:
        """Runs the first blocks alone: what is computed once for many passes that differ in later blocks only.

        Args:
            images: Preprocessed images, `(N, 3, H, W)`.
            depth: How many blocks; 0 for what comes before the first, and of all blocks the features are what is left.
            readout: What will be read out; see `forward`.

        Returns:
            What `forward` takes in place of the images, as long as nothing is attached to the first blocks.

        Raises:
            BackboneError: If the backbone has no such block, or cannot go on from there.
        """
        check_readout(readout)
        if not 0 <= depth <= len(self.blocks):
            raise BackboneError(f"depth must lie between 0 and the {len(self.blocks)} blocks, got {depth}")
        start = self.route(depth).start if depth < len(self.blocks) else ""
        images = self._laid_out(images, readout)
        with self._reading(readout, 0, depth) as read:
            if depth == len(self.blocks):
                tokens = cast(Tensor, self.model(images))
            else:
                tokens = run_up_to(self.model, start, images)
        return Prefix(depth, tokens, read, readout)

    def route(self, depth: int) -> Route:
        """Returns the way from a block to the features, found and checked at the first use.

        Args:
            depth: Number of the block.

        Raises:
            BackboneError: If the model does more between its blocks than to hand one tensor on.
        """
        first = next(self.model.parameters())
        key = (depth, first.device, first.dtype)
        if key not in self._routes:
            self._routes[key] = self._find_route(depth)
        return self._routes[key]

    def _find_route(self, depth: int) -> Route:
        refusals = []
        for name in starts([site.input_module for site in self.blocks], depth):
            try:
                return find_route(self.model, name, self.preprocessing.size)
            except BackboneError as error:
                refusals.append(error)
        raise refusals[0]

    def _go_on(self, prefix: Prefix, readout: str) -> Features:
        if prefix.readout != readout:
            raise BackboneError(f"the first blocks were run for the readout {prefix.readout!r}, not for {readout!r}")
        if min(self.occupied, default=prefix.depth) < prefix.depth:
            raise BackboneError(
                f"something is attached to block {min(self.occupied)}, but the first {prefix.depth} blocks were run "
                "before; give the images themselves"
            )
        if prefix.depth == len(self.blocks):
            return self._features(prefix.tokens, prefix.read, readout)
        route = self.route(prefix.depth)
        with self._reading(readout, prefix.depth, len(self.blocks)) as read:
            last = route(prefix.tokens)
        return self._features(last, {**prefix.read, **read}, readout)

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

    @contextmanager
    def plain(self) -> Iterator[nn.Module]:
        """Lends the timm model as timm makes it, whose attention may use the weights of a layer without calling it."""
        for module, switch in self._switched.items():
            vars(module)[_SWITCH] = switch
        try:
            yield self.model
        finally:
            _call_fused_layers(self.model)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The attention and MLP branches of every block; the whole block where it has no such branches."""
        parts = {depth: [site] for depth, site in enumerate(self.blocks)}
        for depth, sites in groupby(self._sites.branches, key=lambda site: site.depth):
            parts[depth] = list(sites)
        return tuple(site for sites in parts.values() for site in sites)

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

    def taps(self, readout: str = MAPS) -> list[Site]:
        """Returns the places whose outputs a readout of maps gives, finest first.

        Without numbers these are among timm's own maps of the model, or the blocks where timm offers none.

        Args:
            readout: `"maps"`, or `"maps:"` with numbers of blocks.

        Raises:
            BackboneError: If the outputs of the blocks are no maps.
            ConfigError: If a block of that number does not exist.
        """
        chosen = chosen_blocks(readout, len(self.blocks))
        if chosen:
            return [self.blocks[number] for number in chosen]
        return [self._maps[level] for level in map_levels(self._map_sizes)]

    def num_features(self, readout: str = "last") -> int:
        """Returns the width of the features.

        Args:
            readout: As in `forward`, of vectors.

        Raises:
            ConfigError: If the readout gives maps; see `feature_shapes`.
        """
        shapes = self.feature_shapes(readout)
        if len(shapes[0]) > 1:
            raise ConfigError(f"the readout {readout!r} gives maps, which have no single width")
        return shapes[0][0]

    def feature_shapes(self, readout: str = "last") -> list[tuple[int, ...]]:
        """Returns the shape of one image's features: `[(D,)]`, or `(C, H, W)` of each map.

        Args:
            readout: As in `forward`.
        """
        features = self._probe(readout)
        maps = features if isinstance(features, list) else [features]
        return [tuple(x.shape[1:]) for x in maps]

    @cached_property
    def _maps(self) -> tuple[Site, ...]:
        found = self._sites.maps or tuple(site for site in self.blocks if site.layout.has_grid)
        if not found:
            raise BackboneError(f"no block of {self.name!r} gives a map: the places of their positions are not certain")
        return found

    @cached_property
    def _map_sizes(self) -> list[tuple[int, int]]:
        """Height and width of every map."""
        with tap_maps(self.model, self._maps) as found:
            self._probe("last")
        return [(found[site.name].shape[2], found[site.name].shape[3]) for site in self._maps]

    @torch.no_grad()
    def _probe(self, readout: str) -> Features:
        first = next(self.model.parameters())
        features: Features = self(
            torch.zeros(1, 3, *self.preprocessing.size, device=first.device, dtype=first.dtype), readout
        )
        return features


def _call_fused_layers(model: nn.Module) -> dict[nn.Module, bool]:
    """Makes attention call its `qkv` layer where it would use the weight without a call, which hooks need.

    Returns:
        The modules that were told to, with what they did before.
    """
    before = {module: bool(getattr(module, _SWITCH)) for module in model.modules() if hasattr(module, _SWITCH)}
    for module in before:
        vars(module)[_SWITCH] = True
    return before


def _trace(model: nn.Module, name: str, size: tuple[int, int]) -> Trace:
    try:
        return trace(model, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BackboneError(
            f"{name!r} does not run on images (3, {size[0]}, {size[1]}): {first_line(error)}"
        ) from error


def _check_features(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        found = f"{shape[1:]}" if shape else "no tensor"
        raise BackboneError(
            f"{name!r} gives {found} for an image, not one vector; take the model of that family which pools, or set "
            "global_pool"
        )
