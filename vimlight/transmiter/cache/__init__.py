"""Logit caches: what an image-text model says of every image of a split, on disk, whole or absent.

```
DIR/manifest.json       everything that the numbers depend on, and a SHA-256 per file
    features.npy        (N, V, E) float16, L2-normalised image features     } either these two
    head.npy            (M, E) float32, L2-normalised text features         }
    logits.npy          (N, V, M) float32                                   } or bare logits
    labels.npy          (N,) int64, if the images are labelled
    ids.txt             N names, one a line, UTF-8
    ids.npy             (N + 1,) int64, where each name begins in ids.txt
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.transmiter.cache.assembly import write_cache
    from vimlight.transmiter.cache.logit_cache import LogitCache
    from vimlight.transmiter.cache.manifest import Manifest
    from vimlight.transmiter.cache.pairing import check_paired, is_one_of_views
    from vimlight.transmiter.cache.text_head import TextHead
    from vimlight.transmiter.cache.writer import CacheWriter

__all__ = ["CacheWriter", "LogitCache", "Manifest", "TextHead", "check_paired", "is_one_of_views", "write_cache"]

_PLACES = {
    "CacheWriter": "writer",
    "LogitCache": "logit_cache",
    "Manifest": "manifest",
    "TextHead": "text_head",
    "check_paired": "pairing",
    "is_one_of_views": "pairing",
    "write_cache": "assembly",
}

__getattr__ = lazily(__name__, _PLACES)
