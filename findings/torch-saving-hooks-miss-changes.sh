#!/usr/bin/env bash
# torch 2.14.1: inside `torch.autograd.graph.saved_tensors_hooks`, even with hooks that do nothing, autograd no longer notices
# that a tensor which it kept was changed in place. The backward pass gives the gradient of the changed numbers, silently.
#
# Without hooks the version of a kept tensor is compared, and the backward pass raises. Whoever measures memory, or moves
# kept tensors elsewhere, through such hooks also switches that guard off for everything that runs inside.
#
# Expected: "RuntimeError" in both cases. Seen, for sin(z) with z = w, to which 1 is added after the forward pass:
#   without hooks: RuntimeError; with hooks: the gradient is cos(w + 1)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy

cat > "$work/changed.py" <<'PY'
from contextlib import nullcontext

import torch


def gradient(context):
    torch.manual_seed(0)
    w = torch.randn(3, requires_grad=True)
    z = w * 1
    with context:
        total = z.sin()
    z.add_(1)
    try:
        total.sum().backward()
    except RuntimeError as error:
        return type(error).__name__
    with torch.no_grad():
        return "the gradient is cos(w + 1)" if torch.allclose(w.grad, (w + 1).cos()) else "another gradient"


hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
print(f"without hooks: {gradient(nullcontext())}; with hooks: {gradient(hooks)}")
PY
seen=$(cd "$work" && "$work/venv/bin/python" changed.py)
echo "$seen"
[ "$seen" = "without hooks: RuntimeError; with hooks: the gradient is cos(w + 1)" ]
