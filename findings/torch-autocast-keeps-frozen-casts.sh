#!/usr/bin/env bash
# torch 2.14.1: under autocast each call of a frozen linear layer casts its weight anew, and where the gradient passes through
# the layer the graph keeps every one of these copies. Of a weight that is trained there is one copy, however many calls.
#
# The cache of casts takes leaves that require a gradient, and no others. A frozen backbone under adapters is where it
# matters: each layer that the gradient passes costs a second copy of its weight in 16 bits, and a layer that is called k
# times k copies, all held until the backward pass. Parameters of 16 bits, or `requires_grad`, avoid it.
#
# Expected: one copy of the weight in both cases. Seen, with a layer of 256 x 256 called four times:
#   copies of the weight that the graph keeps: trained 1, frozen 4
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy

cat > "$work/casts.py" <<'PY'
import torch


def copies(trained):
    layer = torch.nn.Linear(256, 256).requires_grad_(trained)
    kept = {}

    def keep(tensor):
        if tensor.dtype == torch.bfloat16 and tensor.numel() == layer.weight.numel():
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.randn(2, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        for _ in range(4):
            x = layer(x)
    return len(kept)


print(f"copies of the weight that the graph keeps: trained {copies(True)}, frozen {copies(False)}")
PY
seen=$(cd "$work" && "$work/venv/bin/python" casts.py)
echo "$seen"
[ "$seen" = "copies of the weight that the graph keeps: trained 1, frozen 4" ]
