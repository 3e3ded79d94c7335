#!/usr/bin/env bash
# torchmetrics 1.9.0: whether a class that does not occur lowers a macro average depends on the metric's name, not on the
# data: perfect predictions score 1 or 0.5.
#
# Four classes, of which two occur; every prediction is right. MulticlassF1Score and MulticlassAccuracy leave the absent
# classes out of their means. MultilabelF1Score, MultilabelAUROC and MultilabelAveragePrecision, asked for the same
# average="macro", count each as 0, without NaN or an error. scikit-learn leaves the choice to the caller
# (zero_division) or returns NaN. Anybody who watches a multi-label score on a split that lacks some labels watches the
# number of labels too.
#
# Expected: "absent labels are NaN and left out of every macro average". Seen: the lines at the end of this file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 'numpy<2.4'

"$work/venv/bin/python" -W ignore - <<'PY' | tee "$work/seen"
import torch
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

classes = torch.tensor([0, 1] * 8)
shown = torch.nn.functional.one_hot(classes, 4)
for metric in (MulticlassF1Score, MulticlassAccuracy):
    print(f"{metric.__name__} {float(metric(4, average='macro')(classes, classes)):.2f}")
for metric in (MultilabelF1Score, MultilabelAUROC, MultilabelAveragePrecision):
    print(f"{metric.__name__} {float(metric(4, average='macro')(0.1 + 0.8 * shown, shown)):.2f}")
PY

diff "$work/seen" - <<'SEEN'
MulticlassF1Score 1.00
MulticlassAccuracy 1.00
MultilabelF1Score 0.50
MultilabelAUROC 0.50
MultilabelAveragePrecision 0.50
SEEN
