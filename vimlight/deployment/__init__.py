"""Deployment of a downstream model: one plain module and one file, without hooks and without the zoo.

A format is an entry of `FORMATS`, in a file of this folder or anywhere else.
"""

from __future__ import annotations

from vimlight.deployment.deployed import OUTPUTS, Deployed, deploy
from vimlight.deployment.formats import FORMATS, Format
from vimlight.deployment.run import load_run

__all__ = ["FORMATS", "OUTPUTS", "Deployed", "Format", "deploy", "load_run"]
