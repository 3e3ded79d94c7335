#!/usr/bin/env bash
# torchmetrics 1.9.0: MeanMetric(nan_strategy="disable") ignores the weights that it is given.
#
# The strategies "warn", "ignore", "error" and a number treat NaN in different ways and agree on everything else.
# "disable", which skips the look for NaN (it synchronises a GPU, so one turns it off in a training loop), also replaces
# every weight by one: a mean of batches of unequal sizes is then wrong by the last, smaller batch, quietly.
#
# Expected: "the weighted mean, 2". Seen, values 1 and 5 with weights 3 and 1:
#   warn 2.0 ignore 2.0 error 2.0 0.0 2.0 disable 3.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 'numpy<2.4'

"$work/venv/bin/python" - <<'PY' | tee "$work/seen"
import torch
from torchmetrics import MeanMetric

words = []
for strategy in ("warn", "ignore", "error", 0.0, "disable"):
    mean = MeanMetric(nan_strategy=strategy)
    mean.update(torch.tensor(1.0), 3)
    mean.update(torch.tensor(5.0), 1)
    words += [strategy, float(mean.compute())]
print(*words)
PY

diff "$work/seen" - <<'SEEN'
warn 2.0 ignore 2.0 error 2.0 0.0 2.0 disable 3.0
SEEN
