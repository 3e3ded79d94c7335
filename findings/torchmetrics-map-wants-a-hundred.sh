#!/usr/bin/env bash
# torchmetrics 1.9.0 with pycocotools 2.0.11: MeanAveragePrecision at most 300 detections an image gives map = -1.
#
# max_detection_thresholds takes any three numbers. Those of LVIS end in 300, those of scenes with few objects below 100;
# map_50, map_75 and the recalls then follow the last of the three, but the main figure is looked up under exactly 100
# detections, and where that is not among the three it is -1, the value that stands for "nothing to find". A checkpoint
# callback that keeps the best map keeps the first one.
#
# Expected: map 1.00 of perfect detections each time. Seen:
#   default: map 1.00, map_50 1.00; 1 10 300: map -1.00, map_50 1.00; 1 10 50: map -1.00, map_50 1.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 torchmetrics==1.9.0 pycocotools==2.0.11 numpy

cat > "$work/thresholds.py" <<'PY'
import torch
from torchmetrics.detection import MeanAveragePrecision

boxes, labels = torch.tensor([[10.0, 10.0, 60.0, 60.0], [70.0, 70.0, 200.0, 200.0]]), torch.tensor([1, 1])


def scores(thresholds):
    metric = MeanAveragePrecision(max_detection_thresholds=thresholds)
    metric.update(
        [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": labels}], [{"boxes": boxes, "labels": labels}]
    )
    found = metric.compute()
    return f"map {found['map']:.2f}, map_50 {found['map_50']:.2f}"


print(f"default: {scores(None)}; 1 10 300: {scores([1, 10, 300])}; 1 10 50: {scores([1, 10, 50])}")
PY
seen=$("$work/venv/bin/python" "$work/thresholds.py")
echo "$seen"
[ "$seen" = "default: map 1.00, map_50 1.00; 1 10 300: map -1.00, map_50 1.00; 1 10 50: map -1.00, map_50 1.00" ]
