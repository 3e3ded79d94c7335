"""Attaching plug-ins to a backbone with hooks, and detaching them without a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.backbone import Backbone, Site
from vimlight.backbone.hooks import Hooks, uncompiled
from vimlight.errors import FingerprintError, PluginError
from vimlight.plugins.base import Plugin, Tap

__all__ = ["Attachment", "Slot", "attach"]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One thing to do during a forward pass: read at a site, compute, add.

    Attributes:
        site: Where.
        reads: What is read; see `Unit.reads`.
        writes: What is added to; see `Unit.writes`.
        function: From what is read to what is added.
        own: Whether what the function returns is a tensor of its own, which may be written to.
    """

    site: Site
    reads: Tap
    writes: str
    function: Callable[[Tensor], Tensor]
    own: bool = False


class Attachment:
    """Slots attached to a backbone until `detach` is called or the context ends.

    Args:
        backbone: The backbone.
        slots: What to do where.
    """

    @uncompiled
    def __init__(self, backbone: Backbone, slots: Sequence[Slot]) -> None:
        self._seen: list[list[Tensor]] = []
        self._hooks = Hooks()
        self._backbone, self._depths = backbone, [depth_of(slot.site, backbone) for slot in slots]
        backbone.occupied.extend(self._depths)
        # A forward pass that fails half-way must not keep what was read alive.
        self._hooks.after(backbone.model, self._forget, always=True)
        try:
            for slot in slots:
                self._attach(backbone.model, slot)
        except BaseException:
            self.detach()
            raise

    def __enter__(self) -> Attachment:
        """Returns itself; the slots are attached already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detaches."""
        self.detach()

    @uncompiled
    def detach(self) -> None:
        """Removes every hook; the backbone computes what it did before, bit for bit."""
        self._hooks.remove()
        for depth in self._depths:
            self._backbone.occupied.remove(depth)
        self._depths = []

    def _attach(self, model: nn.Module, slot: Slot) -> None:
        site = slot.site
        if slot.writes == "input":
            self._before(model, site.input_module, lambda x: self._sum(slot, x, x))
        elif slot.reads == "output" or site.place == "block":
            self._after(model, slot, lambda output: _part(output, site))
        else:
            self._across(model, slot)

    def _across(self, model: nn.Module, slot: Slot) -> None:
        """Reads at one module's input and writes at another's output."""
        site = slot.site
        source = site.residual_module if slot.reads == "residual" and site.residual_module else site.input_module
        seen: list[Tensor] = []
        self._seen.append(seen)

        def remember(x: Tensor) -> Tensor:
            seen[:] = [x]
            return x

        self._before(model, source, remember)
        self._after(model, slot, lambda _: seen.pop())

    def _forget(self, *_: object) -> None:
        for seen in self._seen:
            seen.clear()

    def _before(self, model: nn.Module, name: str, change: Callable[[Tensor], Tensor]) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (change(args[0]), *args[1:])

        self._hooks.before(model.get_submodule(name), hook)

    def _after(self, model: nn.Module, slot: Slot, read: Callable[[Tensor], Tensor]) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            written = slot.site.tensor(output)
            return slot.site.put(output, self._sum(slot, written, read(written)))

        self._hooks.after(model.get_submodule(slot.site.output_module), hook)

    def _sum(self, slot: Slot, written: Tensor, read: Tensor) -> Tensor:
        """Adds what the slot's function makes of what was read; while there is a ledger it learns how."""
        ledger = self._backbone.ledger
        if ledger is None or torch.compiler.is_compiling():
            return _added(written, slot.function(read), slot)
        sources = ledger.source(written), ledger.source(read)
        delta, again = ledger.repeatable(slot.function, read)
        whole = _added(written, delta, slot)
        if again is not None:
            ledger.note(whole, partial(_added_again, again, slot), *sources)
        return whole


def attach(backbone: Backbone, plugin: Plugin) -> Attachment:
    """Attaches a plug-in; use it as a context, or call `detach` on what it returns.

    Args:
        backbone: The backbone that the plug-in was made for.
        plugin: The plug-in.

    Raises:
        FingerprintError: If the plug-in was made for another backbone.
        PluginError: If the backbone lacks one of its sites.
    """
    check_fit(backbone, plugin)
    unit_type = plugin.unit_type
    return Attachment(
        backbone, [Slot(site, unit_type.reads, unit_type.writes, plugin.unit(site)) for site in plugin.sites]
    )


def check_fit(backbone: Backbone, plugin: Plugin) -> None:
    """Checks that a plug-in belongs to a backbone.

    Args:
        backbone: The backbone.
        plugin: The plug-in.

    Raises:
        FingerprintError: If it was made for another backbone.
        PluginError: If the backbone lacks one of its sites.
    """
    if plugin.fingerprint != backbone.fingerprint:
        raise FingerprintError(
            f"the plug-in belongs to the backbone with fingerprint {plugin.fingerprint[:12]}..., "
            f"but {backbone.name!r} has {backbone.fingerprint[:12]}...; a module fits only the one it was trained on"
        )
    known = {site.name for site in backbone.all_sites}
    missing = [name for name in plugin.site_names if name not in known]
    if missing:
        raise PluginError(
            f"{backbone.name!r} has no site {missing[0]!r} (and {len(missing) - 1} more of the plug-in's)"
        )


def depth_of(site: Site, backbone: Backbone) -> int:
    """Returns the number of the block that a site belongs to; -1 for what lies outside the blocks, wherever that is."""
    return site.depth if 0 <= site.depth < len(backbone.blocks) else -1


def _part(output: Tensor, site: Site) -> Tensor:
    return output if site.part is None else output[..., site.part[0] : site.part[1]]


def _added_again(function: Callable[[Tensor], Tensor], slot: Slot, written: Tensor, read: Tensor) -> Tensor:
    # What was computed again may be asked for once more, so it is not written to.
    return _added(written if slot.site.part is None else written.clone(), function(read), slot)


def _added(output: Tensor, delta: Tensor, slot: Slot) -> Tensor:
    if slot.site.part is not None and slot.writes == "output":
        # What a fused layer has just made is nobody else's yet, unless the unit has read it.
        whole = output.clone() if slot.reads == "output" else output
        _part(whole, slot.site).add_(delta)
        return whole
    # A graph would have to copy what it knows of a view that is written to.
    writable = slot.own and not (delta.requires_grad and torch.is_grad_enabled())
    if writable and delta.dtype == output.dtype and delta.shape == output.shape:
        return delta.add_(output)
    return output + delta
