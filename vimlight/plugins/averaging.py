"""The mean of several plug-ins as one plug-in of the same type."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vimlight.errors import PluginError
from vimlight.plugins.base import Plugin

__all__ = ["average", "require_equal"]


def average(plugins: Sequence[Plugin], names: Sequence[str]) -> Plugin:
    """Returns one plug-in with the mean of several, each site's as its type takes it; see `Unit.mean`.

    Args:
        plugins: Plug-ins of one type, setting and set of sites, of one backbone.
        names: What they are called in messages.

    Returns:
        The plug-in, frozen and in eval mode; the mean of equal plug-ins has their tensors bit for bit.

    Raises:
        PluginError: If they differ in type, settings or sites.
    """
    require_equal(plugins, names, "an average")
    first = plugins[0]
    settings, states = first.unit_type.mean([[plugin.unit(site) for plugin in plugins] for site in first.sites])
    # The initial values are thrown away, so they must not move the global random state.
    with torch.random.fork_rng(devices=[]):
        merged = Plugin(
            first.kind,
            first.sites,
            {**first.settings, **settings},
            first.fingerprint,
            first.backbone_name,
            first.preprocessing,
            first.block_count,
        )
    for site, state in zip(first.sites, states, strict=True):
        # Assigned, not copied, so that the dtype stays too.
        merged.unit(site).load_state_dict(state, assign=True)
    return merged.requires_grad_(False).eval()


def require_equal(plugins: Sequence[Plugin], names: Sequence[str], what: str) -> None:
    """Checks that plug-ins are of one type and setting, at the same sites.

    Args:
        plugins: The plug-ins.
        names: What they are called.
        what: What needs it.

    Raises:
        PluginError: If they are not.
    """
    first = plugins[0]
    for plugin, name in zip(plugins[1:], names[1:], strict=True):
        if (plugin.kind, plugin.settings, plugin.site_names) != (first.kind, first.settings, first.site_names):
            raise PluginError(
                f"{what} needs modules of one type, setting and set of sites: {names[0]!r} is {first.kind} "
                f"{first.settings}, {name!r} is {plugin.kind} {plugin.settings}; use 'ens_moe' for unlike modules"
            )
