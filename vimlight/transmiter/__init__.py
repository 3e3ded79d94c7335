"""TransMiter: what fine-tuning changed in a weak image-text model, learnt on cached logits and moved to a strong one.

Names are imported at their first use, so that looking into a cache imports nothing it does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vimlight.transmiter.adapters import GapRidge, TransMiter, load_adapter
    from vimlight.transmiter.adapters.gap_ridge import fit_gap_ridge
    from vimlight.transmiter.cache import LogitCache, TextHead, check_paired, write_cache
    from vimlight.transmiter.cache.data_module import CacheDataModule
    from vimlight.transmiter.learning.extraction import ExtractionModule
    from vimlight.transmiter.learning.refinement import RefinementModule
    from vimlight.transmiter.moving.alignment import align, align_all, choose_beta
    from vimlight.transmiter.moving.deployment import RefinedModel, deploy

__all__ = [
    "CacheDataModule",
    "ExtractionModule",
    "GapRidge",
    "LogitCache",
    "RefinedModel",
    "RefinementModule",
    "TextHead",
    "TransMiter",
    "align",
    "align_all",
    "check_paired",
    "choose_beta",
    "deploy",
    "fit_gap_ridge",
    "load_adapter",
    "write_cache",
]

_HOMES = {
    "CacheDataModule": "cache.data_module",
    "ExtractionModule": "learning.extraction",
    "GapRidge": "adapters",
    "LogitCache": "cache",
    "RefinedModel": "moving.deployment",
    "RefinementModule": "learning.refinement",
    "TextHead": "cache",
    "TransMiter": "adapters",
    "align": "moving.alignment",
    "align_all": "moving.alignment",
    "choose_beta": "moving.alignment",
    "check_paired": "cache",
    "deploy": "moving.deployment",
    "fit_gap_ridge": "adapters.gap_ridge",
    "load_adapter": "adapters",
    "write_cache": "cache",
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its module at the first use.

    Raises:
        AttributeError: If there is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted(__all__)
