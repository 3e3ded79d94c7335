#!/usr/bin/env bash
# pycocotools 2.0.11: objects numbered from 0 cost a perfect detector three quarters of its average precision.
#
# COCOeval notes of each detection the id of the object that it found, and reads 0 as "found nothing". Files whose
# annotations are numbered from 0, as many exporters write them, are valid to `COCO` and to `loadRes`; one object in the
# data set can then never be found, and the detection that finds it counts as wrong. In a small data set, or where that
# object is the only one of its class, the loss is large; in a large one it stays unseen.
#
# Expected: AP 1.0 both times. Seen, two objects and two perfect detections, the surer one of the first object:
#   ids 1, 2: AP 1.000; ids 0, 1: AP 0.252
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy

cat > "$work/ids.py" <<'PY'
import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOXES = [[10, 10, 30, 30], [50, 10, 30, 30]]


def average_precision(ids):
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 900, "iscrowd": 0}
            for number, box in zip(ids, BOXES)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(
            [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9 - 0.1 * n} for n, box in enumerate(BOXES)]
        )
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


print(f"ids 1, 2: AP {average_precision([1, 2]):.3f}; ids 0, 1: AP {average_precision([0, 1]):.3f}")
PY
seen=$("$work/venv/bin/python" "$work/ids.py")
echo "$seen"
[ "$seen" = "ids 1, 2: AP 1.000; ids 0, 1: AP 0.252" ]
