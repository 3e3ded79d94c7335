#!/usr/bin/env bash
# torchmetrics 1.9.0: one negative score in one of ten batches takes the average precision from 0.67 to 0.41.
#
# Curves and what is computed from them (average precision, AUROC, calibration) take probabilities or logits: where a score
# lies outside of [0, 1], a sigmoid or softmax is applied. That is decided anew at each `update`, and what is kept of the
# batches is then ranked together. Cosines of an image-text model lie between 0 and 0.4 but for a few below zero: batches
# with such an image go through the sigmoid, to 0.5 and above, the others stay as they are, and the figure depends on how
# the images were dealt into batches. In one batch, the order alone counts, and the figure is right.
#
# Expected: the same twice. Seen, for 400 cosines, one of them negative:
#   one batch: AP 0.6709, AUROC 0.8637; ten batches: AP 0.4141, AUROC 0.7863
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchmetrics==1.9.0 numpy

cat > "$work/batches.py" <<'PY'
import torch
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

torch.manual_seed(0)
truth = (torch.randint(5, (400,)) == 0).long()
cosines = 0.15 + 0.03 * torch.randn(400) + 0.05 * truth
cosines[0] = -0.01


def scores(batches):
    average_precision, area = BinaryAveragePrecision(), BinaryAUROC()
    for part, target in zip(cosines.chunk(batches), truth.chunk(batches)):
        average_precision.update(part, target)
        area.update(part, target)
    return f"AP {average_precision.compute():.4f}, AUROC {area.compute():.4f}"


print(f"one batch: {scores(1)}; ten batches: {scores(10)}")
PY
seen=$("$work/venv/bin/python" "$work/batches.py")
echo "$seen"
[[ "$seen" =~ ^one\ batch:\ AP\ 0.6[0-9]+,\ AUROC\ 0.8[0-9]+\;\ ten\ batches:\ AP\ 0.4[0-9]+,\ AUROC\ 0.7[0-9]+$ ]]
