#!/usr/bin/env bash
# torchmetrics 1.9.0: a MetricCollection takes two metrics for one if their numbers agree on the first batch, whatever their
# arguments say, and from then on the second is computed from what the first has counted.
#
# `compute_groups` is on unless told otherwise. After the first update, metrics whose states are equal share them; arguments
# that change what is counted, as `ignore_index` does, are not looked at. Two mean intersections over union, with and
# without a void label, agree on every batch that has no void pixel. If that is the first one, void pixels are counted
# in the second metric, too. Without groups, or alone, both are right. Which batch comes first decides the result of a run.
#
# Expected: "metrics of the same arguments are grouped". Seen, two batches, of which the second has void pixels (label 2):
#   in a collection 0.4167 and 0.4583, without groups 0.4167 and 0.5; the batches in the other order: 0.4167 and 0.5
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchmetrics==1.9.0 'numpy<2.4'

"$work/venv/bin/python" -W error - <<'PY' | tee "$work/seen"
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassJaccardIndex

clean = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 0, 1])
with_void = torch.tensor([2, 2, 0]), torch.tensor([2, 0, 2])


def show(title, batches, **options):
    kinds = {"all labels": MulticlassJaccardIndex(3), "without 2": MulticlassJaccardIndex(3, ignore_index=2)}
    metrics = MetricCollection(kinds, **options)
    for found, true in batches:
        metrics.update(found, true)
    groups = list(metrics.compute_groups.values())
    print(title, {name: round(float(value), 4) for name, value in metrics.compute().items()}, groups)


show("collection:", [clean, with_void])
show("other order:", [with_void, clean])
show("no groups:", [clean, with_void], compute_groups=False)
PY

diff "$work/seen" - <<'SEEN'
collection: {'all labels': 0.4167, 'without 2': 0.4583} [['all labels', 'without 2']]
other order: {'all labels': 0.4167, 'without 2': 0.5} [['all labels'], ['without 2']]
no groups: {'all labels': 0.4167, 'without 2': 0.5} []
SEEN
