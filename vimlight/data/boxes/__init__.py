"""Boxes of objects: what is known of them, and the files that say it (COCO JSON, VOC XML)."""

from __future__ import annotations

from vimlight.data.boxes.coco import read_coco
from vimlight.data.boxes.targets import BoxAnnotations, BoxTargets, RawBox, pack_boxes
from vimlight.data.boxes.voc import read_voc

__all__ = ["BoxAnnotations", "BoxTargets", "RawBox", "pack_boxes", "read_coco", "read_voc"]
