#!/usr/bin/env bash
# torchmetrics 1.9.0: a calibration error of n bins has one more, for images of which a model is entirely sure.
#
# Bins of confidence are open at the top, the last one too, so that a confidence of exactly 1, which a softmax of far
# apart logits rounds to, has a bin of its own. What one image of the last bin is too sure of and another not sure enough
# cancels within a bin, but not between two: with a single bin, where the error is the distance of mean confidence from
# accuracy, it comes out as something else. The same logits in float64 may round to less than 1, and give the other number.
#
# Expected, of two images at 0.75 (right) and 1.0 (wrong) in one bin: |0.875 - 0.5| = 0.375. Seen:
#   at 1.0: 0.6250; just below: 0.3750
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchmetrics==1.9.0 numpy

cat > "$work/bins.py" <<'PY'
import torch
from torchmetrics.functional.classification import multiclass_calibration_error


def error(sure):
    probabilities = torch.tensor([[0.75, 0.25], [sure, 1 - sure]])
    return float(multiclass_calibration_error(probabilities, torch.tensor([0, 1]), num_classes=2, n_bins=1))


print(f"at 1.0: {error(1.0):.4f}; just below: {error(1.0 - 2**-24):.4f}")
PY
seen=$("$work/venv/bin/python" "$work/bins.py")
echo "$seen"
[ "$seen" = "at 1.0: 0.6250; just below: 0.3750" ]
