#!/usr/bin/env bash
# torchmetrics 1.9.0: R2, explained variance and relative squared error of numbers with a large mean are wrong, each in
# another way, and without a warning.
#
# The three keep sums and sums of squares in the type of the inputs, float32, and take their difference in the end. Where
# the mean is large beside the spread (years, prices, coordinates) nothing is left of it. What comes out depends on the
# numbers: of R2 and of explained variance anything from 0 to 1 (of two samples tried, 0 and 1, and 1.0 twice), of relative
# squared error thousands of millions. Explained variance of 1 for errors of two fifths of the spread is the one
# that nobody would doubt. Inputs in float64 help; so do shifted inputs.
#
# Expected: "NaN, or all three visibly wrong". Seen, 1,000 numbers of mean 1e6 and spread 3, errors of spread 1.2:
#   wrong by more than 0.1 in float32, right within 0.01 in float64, all three
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 torchmetrics==1.9.0 scikit-learn==1.7.2 'numpy<2.4'

"$work/venv/bin/python" - <<'PY' | tee "$work/seen"
import torch
from sklearn.metrics import explained_variance_score, r2_score
from torchmetrics import ExplainedVariance, R2Score, RelativeSquaredError

generator = torch.Generator().manual_seed(0)
true = 1e6 + 3 * torch.randn(1_000, generator=generator)
found = true + 1.2 * torch.randn(1_000, generator=generator)
exact = {
    "R2": (R2Score, r2_score(true.double(), found.double())),
    "explained variance": (ExplainedVariance, explained_variance_score(true.double(), found.double())),
    "relative squared error": (RelativeSquaredError, 1 - r2_score(true.double(), found.double())),
}
for name, (metric, right) in exact.items():
    values = []
    for dtype in (torch.float32, torch.float64):
        made = metric().set_dtype(dtype)
        made.update(found.to(dtype), true.to(dtype))
        values.append(float(made.compute()))
    single, double = values
    print(f"{name}: right in float32 {abs(single - right) < 0.1}, in float64 {abs(double - right) < 0.01}")
    print(f"  scikit-learn {right:.4f}, float32 {single:.5g}, float64 {double:.4f}", file=__import__("sys").stderr)
PY

diff "$work/seen" - <<'SEEN'
R2: right in float32 False, in float64 True
explained variance: right in float32 False, in float64 True
relative squared error: right in float32 False, in float64 True
SEEN
