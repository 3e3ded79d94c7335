#!/usr/bin/env bash
# torchmetrics 1.9.0: mean errors of float16 predictions are infinite though the metric keeps float32, and without a warning.
#
# The errors of a batch are squared and summed in the type of the inputs, and only then added to a state that is
# float32. Half precision ends at 65,504: one depth map of 224 x 224 pixels that is off by 1.5 m sums to 75,264. Mean
# absolute error, mean squared error, mean absolute percentage error and log-cosh error are inf, R2 is NaN, for numbers
# that are all ordinary. MeanMetric of the same errors is right, and Pearson's correlation, NaN too, at least warns. In
# bfloat16 the sums are finite and have three digits. `float()` before `update` helps, `set_dtype` of the metric does not.
#
# Expected: "as the states are float32, so are the sums". Seen, maps of 224 x 224 pixels, all off by 1.5:
#   inf by four metrics, 1.5 by MeanMetric of the errors and by MeanAbsoluteError of float32
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchmetrics==1.9.0 'numpy<2.4'

"$work/venv/bin/python" -W error - <<'PY' | tee "$work/seen"
import torch
from torchmetrics import (
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanMetric,
    MeanSquaredError,
    R2Score,
)

true = torch.full((4, 224, 224), 1.5, dtype=torch.float16).flatten()
found = 2 * true


def measured(metric, found, true):
    metric.update(found, true)
    value = metric.compute()
    return f"{float(value):.4g} in {value.dtype}"


for kind in (MeanAbsoluteError, MeanSquaredError, MeanAbsolutePercentageError, LogCoshError):
    print(f"{kind.__name__}: {measured(kind(), found, true)}")
print(f"MeanAbsoluteError in double: {measured(MeanAbsoluteError().set_dtype(torch.float64), found, true)}")
print(f"MeanAbsoluteError of float32: {measured(MeanAbsoluteError(), found.float(), true.float())}")
mean = MeanMetric()
mean.update((found - true).abs())
print(f"MeanMetric of the errors: {float(mean.compute()):.4g}")

generator = torch.Generator().manual_seed(0)
true = (100 * torch.rand(100_000, generator=generator)).half()
found = true + torch.rand(100_000, generator=generator).half()
print(f"R2Score: {measured(R2Score(), found, true)}, of float32 {measured(R2Score(), found.float(), true.float())}")
PY

diff "$work/seen" - <<'SEEN'
MeanAbsoluteError: inf in torch.float32
MeanSquaredError: inf in torch.float32
MeanAbsolutePercentageError: inf in torch.float32
LogCoshError: inf in torch.float32
MeanAbsoluteError in double: inf in torch.float64
MeanAbsoluteError of float32: 1.5 in torch.float32
MeanMetric of the errors: 1.5
R2Score: nan in torch.float32, of float32 0.9996 in torch.float32
SEEN
