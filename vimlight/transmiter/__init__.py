"""TransMiter: what fine-tuning changed in a weak image-text model, learnt on cached logits and moved to a strong one.

Names are imported at their first use, so that looking into a cache imports nothing it does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vimlight.transmiter.adapters import GapRidge, TransMiter, load_adapter
    from vimlight.transmiter.alignment import align, align_all, choose_beta
    from vimlight.transmiter.cache import LogitCache, TextHead, check_paired, write_cache
    from vimlight.transmiter.data import CacheDataModule
    from vimlight.transmiter.deployment import RefinedModel, deploy
    from vimlight.transmiter.extraction import ExtractionModule
    from vimlight.transmiter.gap_ridge import fit_gap_ridge
    from vimlight.transmiter.refinement import RefinementModule

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
    "CacheDataModule": "data",
    "ExtractionModule": "extraction",
    "GapRidge": "adapters",
    "LogitCache": "cache",
    "RefinedModel": "deployment",
    "RefinementModule": "refinement",
    "TextHead": "cache",
    "TransMiter": "adapters",
    "align": "alignment",
    "align_all": "alignment",
    "choose_beta": "alignment",
    "check_paired": "cache",
    "deploy": "deployment",
    "fit_gap_ridge": "gap_ridge",
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
