"""TransMiter: what fine-tuning changed in a weak image-text model, learnt on cached logits and moved to a strong one.

The steps are packages, in this order; no later one asks a model for what an earlier one has written down:

1. `cache`: what a model says of every image, once and on disk. `models` are those that are asked, `sources` the ways to
   fine-tune a weak one on a few labels, which writes the caches of what it became.
2. `learning`: an adapter learns from caches alone what fine-tuning changed. `adapters` are its kinds and their files.
3. `moving`: a closed form turns the adapter to the strong model's logits; it becomes a file that runs without vimlight.
4. `judging`: methods compared from caches, on which classes and images, and how sure the difference is.

Names are imported at their first use, so that looking into a cache imports nothing it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

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

_PLACES = {
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

__getattr__ = lazily(__name__, _PLACES)
