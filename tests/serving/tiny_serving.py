"""Images as files, and the kinds of tasks that are served."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vimlight.tasks import list_tasks

KINDS = [kind for kind in list_tasks() if kind != "retrieval"]
"""Those whose predictions have words or pictures."""


def png(width=50, height=40, seed=0, format="PNG", **options):
    """The content of an image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=format, **options)
    return content.getvalue()
