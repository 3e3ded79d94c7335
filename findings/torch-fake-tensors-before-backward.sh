#!/usr/bin/env bash
# torch 2.14.1 on a machine without a GPU: after a fake tensor, the first backward pass of a process decides whether
# processes forked from it can train.
#
# Fake tensors (torch.export, torch.compile, FakeTensorMode) register stand-ins for eight devices and leave them there.
# A process whose first backward pass comes later starts one autograd thread for each of the eight, and autograd refuses
# to work in processes forked from one with such threads. If any backward pass came before, there are no threads and all
# is well. So a test of fork-based DDP fails only where an export ran before it in the same process.
#
# Expected: "a fake tensor leaves nothing behind". Seen:
#   backward first: 0 threads more, the child can train
#   fake tensor first: 8 threads more, the child cannot: Unable to handle autograd's threading in combination with fork
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 'numpy<2.4'

cat > "$work/order.py" <<'PY'
import os
import sys

import torch
from torch._subclasses import FakeTensorMode


def backward():
    torch.ones(1, requires_grad=True).sum().backward()


def threads():
    return len(os.listdir("/proc/self/task"))


torch.set_num_threads(1)
if sys.argv[1] == "backward":
    backward()
with FakeTensorMode():
    torch.ones(2)
before = threads()
backward()
started = threads() - before
reading, writing = os.pipe()
if os.fork() == 0:
    try:
        backward()
        said = "can train"
    except RuntimeError as error:
        said = f"cannot: {str(error).split('-')[0]}"
    os.write(writing, said.encode())
    os._exit(0)
os.wait()
print(f"{sys.argv[1].replace('fake', 'fake tensor')} first: {started} threads more, the child {os.read(reading, 200).decode()}")
PY
for first in backward fake; do
    CUDA_VISIBLE_DEVICES='' "$work/venv/bin/python" -W ignore "$work/order.py" "$first"
done | tee "$work/seen"

diff "$work/seen" - <<'SEEN'
backward first: 0 threads more, the child can train
fake tensor first: 8 threads more, the child cannot: Unable to handle autograd's threading in combination with fork
SEEN
