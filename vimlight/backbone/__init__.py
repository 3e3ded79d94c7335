"""The frozen backbone: any timm model, never trained, with named sites where plug-ins attach."""

from __future__ import annotations

from vimlight.backbone.creating import build_backbone, create_backbone
from vimlight.backbone.layout import Layout
from vimlight.backbone.model import Backbone
from vimlight.backbone.prefix import KeptImages, Prefix
from vimlight.backbone.preprocessing import Preprocessing
from vimlight.backbone.readout import READOUTS, Features, check_readout
from vimlight.backbone.site import Site

__all__ = [
    "READOUTS",
    "Backbone",
    "Features",
    "KeptImages",
    "Layout",
    "Prefix",
    "Preprocessing",
    "Site",
    "build_backbone",
    "check_readout",
    "create_backbone",
]
