"""Deployment of a downstream model: one plain module and one file, without hooks and without the zoo.

A format is an entry of `FORMATS`, in a file of this folder or anywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.deployment.deployed import OUTPUTS, Deployed, deploy
    from vimlight.deployment.formats import Format
    from vimlight.deployment.registry import FORMATS
    from vimlight.deployment.run import load_run

__all__ = ["FORMATS", "OUTPUTS", "Deployed", "Format", "deploy", "load_run"]

_PLACES = {
    "FORMATS": "registry",
    "OUTPUTS": "deployed",
    "Deployed": "deployed",
    "Format": "formats",
    "deploy": "deployed",
    "load_run": "run",
}

__getattr__ = lazily(__name__, _PLACES)
