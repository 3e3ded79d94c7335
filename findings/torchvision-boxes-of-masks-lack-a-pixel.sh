#!/usr/bin/env bash
# torchvision 0.29.1 and pycocotools 2.0.11: the boxes that they draw around one mask differ by a pixel in width and height.
#
# torchvision's `masks_to_boxes` gives the last pixel's index as the right and lower edge, its `box_area` and `box_iou` take
# edges as coordinates, and so does COCO, whose `toBbox` counts the last pixel in. So boxes made from masks are too small by
# a pixel on two sides when they meet COCO's, and the box of a mask one pixel wide has no area at all, though the
# documentation promises x1 < x2. For objects of some 8 pixels, cells or distant cars, that alone costs the overlap that
# counts as found at the strict thresholds.
#
# Expected: IoU 1 at every size. Seen, IoU of the two boxes of a square mask of n pixels:
#   1: 0.00; 2: 0.25; 8: 0.77; 32: 0.94
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 pycocotools==2.0.11 numpy

cat > "$work/boxes.py" <<'PY'
import numpy as np
import torch
from pycocotools import mask as coco
from torchvision.ops import box_convert, box_iou, masks_to_boxes


def overlap(size):
    mask = np.zeros((64, 64), np.uint8, order="F")
    mask[5 : 5 + size, 9 : 9 + size] = 1
    ours = masks_to_boxes(torch.from_numpy(mask.copy())[None])
    theirs = torch.tensor(coco.toBbox(coco.encode(mask)), dtype=torch.float32)[None]
    return box_iou(ours, box_convert(theirs, "xywh", "xyxy")).item()


print("; ".join(f"{size}: {overlap(size):.2f}" for size in (1, 2, 8, 32)))
PY
seen=$("$work/venv/bin/python" "$work/boxes.py")
echo "$seen"
[ "$seen" = "1: 0.00; 2: 0.25; 8: 0.77; 32: 0.94" ]
