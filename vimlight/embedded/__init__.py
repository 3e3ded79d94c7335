"""The shipped image-text pair: a small and a base model, trained on drawn scenes and their captions.

Importing this package registers the image towers `vit_scenes_small` and `vit_scenes_base` with timm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vimlight.embedded.towers import vit_scenes_base, vit_scenes_small

if TYPE_CHECKING:
    from vimlight.embedded.pair import PAIR_MODELS, create_pair_model, load_pair_model, pair_card, pair_tokenizer

__all__ = [
    "PAIR_MODELS",
    "create_pair_model",
    "load_pair_model",
    "pair_card",
    "pair_tokenizer",
    "vit_scenes_base",
    "vit_scenes_small",
]


def __getattr__(name: str) -> Any:
    # open_clip takes a second to import and is not needed for the image towers alone.
    if name in __all__:
        from vimlight.embedded import pair

        return getattr(pair, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
