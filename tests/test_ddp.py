"""Two processes train the module that one process trains with the same global batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
from functools import partial
import torch
from torch.optim import SGD
from tiny_training import midstream, downstream, digits, scenes, tiny_backbone, trainer

torch.set_num_threads(1)
stage, devices, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
backbone = tiny_backbone()
batch_size = 8 // devices
if stage == "midstream":
    data = scenes(train=40, batch_size=batch_size)
    model = midstream(backbone, data, f"{root}/zoo", name="module", optimizer=partial(SGD, lr=0.002))
else:
    data = digits(shots=4, batch_size=batch_size)
    model = downstream(backbone, data, f"{root}/zoo", aggregator="none", head="linear", extra_module="lora",
                       optimizer=partial(SGD, lr=0.001))
# Whole global batches alone: what is left over is shared out by repeating images.
options = {"strategy": "ddp", "limit_train_batches": 4}
fit = trainer(root, epochs=2, **{**options, "devices": devices})
fit.fit(model, datamodule=data)
if fit.is_global_zero:
    metric = fit.callback_metrics["val/accuracy"]
    torch.save({"state": model.state_dict(), "accuracy": metric}, f"{root}/result.pt")
"""


def train(stage, devices, root):
    root.mkdir()
    script = root / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # Lightning starts the second process itself.
    own = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "PYTHONPATH": str(Path(__file__).parent),
        "OMP_NUM_THREADS": "1",
    }
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "LOCAL_", "NODE_", "WORLD"))
    }
    command = [sys.executable, "-W", "ignore", str(script), stage, str(devices), str(root)]
    done = subprocess.run(command, env={**clean, **own}, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(root / "result.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["midstream", "downstream"])
def test_two_processes_train_the_same_module(tmp_path, stage):
    one, two = train(stage, 1, tmp_path / "one"), train(stage, 2, tmp_path / "two")
    assert one["state"].keys() == two["state"].keys()
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(two["accuracy"], one["accuracy"])
    if stage == "midstream":
        files = [{path.name for path in (tmp_path / run / "zoo").iterdir()} for run in ("one", "two")]
        assert files[0] == files[1] == {"module.safetensors", "module.head.safetensors"}
