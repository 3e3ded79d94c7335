"""Two processes train the module that one process trains with the same global batch."""

from __future__ import annotations

import json
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
from vimlight.report.predictions import PredictionWriter
from tiny_training import midstream, downstream, digits, scenes, tiny_backbone, trainer

torch.set_num_threads(1)
stage, devices, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
backbone = tiny_backbone()
batch_size = 8 // devices
if stage == "masks":
    data = scenes("segments", train=40, batch_size=batch_size)
    model = midstream(backbone, data, f"{root}/zoo", name="module", task={"kind": "segmentation", "head": "linear"},
                      optimizer=partial(SGD, lr=0.002))
elif stage == "midstream":
    data = scenes(train=40, batch_size=batch_size)
    model = midstream(backbone, data, f"{root}/zoo", name="module", optimizer=partial(SGD, lr=0.002))
elif stage == "detection":
    # Of an odd number of test images one is seen twice.
    data = scenes("objects", train=40, batch_size=batch_size, test_limit=13)
    model = midstream(backbone, data, f"{root}/zoo", name="module", optimizer=partial(SGD, lr=0.002),
                      task={"kind": "detection", "width": 32, "levels": 2, "convs": 1, "score_threshold": 0.0})
else:
    data = digits(shots=4, batch_size=batch_size)
    model = downstream(backbone, data, f"{root}/zoo", aggregator="none", head="linear", extra_module="lora",
                       optimizer=partial(SGD, lr=0.001))
# Whole global batches alone: what is left over is shared out by repeating images.
options = {"strategy": "ddp", "limit_train_batches": 4}
writer = PredictionWriter(f"{root}/out.json")
fit = trainer(root, epochs=2, callbacks=[writer], **{**options, "devices": devices})
fit.fit(model, datamodule=data)
metric = fit.callback_metrics[f"val/{model.task.monitor}"]
tested = fit.test(model, datamodule=data, verbose=False)[0] if stage == "detection" else {}
if stage == "detection":
    fit.predict(model, datamodule=data, return_predictions=False)
if fit.is_global_zero:
    torch.save({"state": model.state_dict(), "metric": metric, "tested": tested}, f"{root}/result.pt")
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
        # The package beside these tests, wherever another one is installed.
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in Path(__file__).parents[:2]),
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
@pytest.mark.parametrize("stage", ["midstream", "masks", "downstream", "detection"])
def test_two_processes_train_the_same_module(tmp_path, stage):
    one, two = train(stage, 1, tmp_path / "one"), train(stage, 2, tmp_path / "two")
    assert one["state"].keys() == two["state"].keys()
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(two["metric"], one["metric"], rtol=1e-3, atol=1e-4)
    if stage == "detection":
        assert one["tested"]["test/map"] == pytest.approx(two["tested"]["test/map"], rel=1e-3)
        rows = [json.loads((tmp_path / run / "out.json").read_text()) for run in ("one", "two")]
        assert [row["image_id"] for row in rows[0]] == [row["image_id"] for row in rows[1]]
        assert len({row["image_id"] for row in rows[0]}) == 13
    if stage != "downstream":
        files = [{path.name for path in (tmp_path / run / "zoo").iterdir()} for run in ("one", "two")]
        assert files[0] == files[1] == {"module.safetensors", "module.head.safetensors"}
