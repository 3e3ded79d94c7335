"""Two processes train the adapter that one process trains with the same global batch, and choose the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_pair import write_pair

SCRIPT = """
import sys
from functools import partial
import torch
from torch.optim import SGD
from tiny_training import trainer
from vimlight.transmiter import CacheDataModule, ExtractionModule, RefinementModule

torch.set_num_threads(1)
stage, devices, root, caches = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
options = {"batch_size": 16 // devices}
common = {"optimizer": partial(SGD, lr=0.02), "out": f"{root}/out.safetensors"}
if stage == "extraction":
    data = CacheDataModule(f"{caches}/weak", tuned=f"{caches}/weak_tuned", **options)
    # Noise is drawn by each process.
    model = ExtractionModule(data.class_names, data.aux_names, noise=0.0, basis="learned", **common)
else:
    data = CacheDataModule(f"{caches}/strong", shots=8, val_shots=8, **options)
    model = RefinementModule(None, data.class_names, data.aux_names, **common)
fit = trainer(root, epochs=3, strategy="ddp", devices=devices)
fit.fit(model, datamodule=data)
if fit.is_global_zero:
    choice = list(getattr(model, "choice", None) or [])
    torch.save({"state": model.state_dict(), "choice": choice}, f"{root}/result.pt")
"""


def train(stage, devices, root, caches):
    root.mkdir()
    script = root / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "LOCAL_", "NODE_", "WORLD"))
    }
    # Lightning starts the second process itself.
    command = [sys.executable, "-W", "ignore", str(script), stage, str(devices), str(root), str(caches)]
    done = subprocess.run(command, env={**clean, **own}, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(root / "result.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["extraction", "refinement"])
def test_two_processes_train_the_same_adapter(tmp_path, stage):
    write_pair(tmp_path / "caches")
    one, two = (train(stage, devices, tmp_path / str(devices), tmp_path / "caches") for devices in (1, 2))
    assert one["state"].keys() == two["state"].keys()
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-6)
    assert one["choice"] == pytest.approx(two["choice"], rel=1e-4)
    assert bool(one["choice"]) == (stage == "refinement")
    assert [path.name for path in (tmp_path / "2").glob("*.safetensors")] == ["out.safetensors"]
