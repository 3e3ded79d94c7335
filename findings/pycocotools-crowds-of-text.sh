#!/usr/bin/env bash
# pycocotools 2.0.11: a flag that is a text, "iscrowd": "0", makes an object a crowd: a perfect detection scores -1.
#
# COCO's format has a number there. Annotation tools that go through XML or CSV write texts. pycocotools takes the truth
# of the value in one place, where "0" is true, and int() of it in another: the object is ignored, nothing is left to
# find, and average precision is -1, the value that stands for "no ground truth". A file with a few such
# objects among others scores without any sign of it.
#
# Expected: "0 by int(), or a TypeError". Seen, one object, one perfect detection:
#   0 1.0
#   1 -1.0
#   '0' -1.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.2.6

"$work/venv/bin/python" - <<'PY' | tee "$work/seen"
import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

box = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40]}
for flag in (0, 1, "0"):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1, "width": 100, "height": 100}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"id": 1, "area": 1600, "iscrowd": flag, **box}],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([{"score": 0.9, **box}]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    print(repr(flag), round(float(evaluation.stats[0]), 3))
PY

diff "$work/seen" - <<'SEEN'
0 1.0
1 -1.0
'0' -1.0
SEEN
