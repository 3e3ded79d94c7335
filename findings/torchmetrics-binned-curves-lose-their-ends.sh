#!/usr/bin/env bash
# torchmetrics 1.9.0: with `thresholds` given, precision over recall is NaN wherever no image is sure enough; without, never.
#
# Curves are computed from all scores, or, to save memory, at given thresholds. At a threshold that nothing reaches, the
# first way has precision 1 by convention, the second divides 0 by 0: every class whose surest image stays below the top
# threshold has a curve with NaN at its end, a mean over classes or an area under the curve is NaN, plots lose a piece.
# The threshold 1.0 is among them by default, and a softmax seldom reaches it.
#
# Expected: no NaN either way. Seen, of 12 images of three classes:
#   all scores: 0 NaN; 11 thresholds: 12 NaN
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchmetrics==1.9.0 numpy

cat > "$work/curves.py" <<'PY'
import torch
from torchmetrics.classification import MulticlassPrecisionRecallCurve

truth = torch.arange(12) % 3
sure = torch.linspace(0.4, 0.65, 12)
probabilities = ((1 - sure) / 2)[:, None].repeat(1, 3)
probabilities[torch.arange(12), truth] = sure


def undefined(thresholds):
    curve = MulticlassPrecisionRecallCurve(3, thresholds=thresholds)
    curve.update(probabilities, truth)
    return sum(int(part.isnan().sum()) for part in curve.compute()[0])


print(f"all scores: {undefined(None)} NaN; 11 thresholds: {undefined(11)} NaN")
PY
seen=$("$work/venv/bin/python" "$work/curves.py")
echo "$seen"
[ "$seen" = "all scores: 0 NaN; 11 thresholds: 12 NaN" ]
