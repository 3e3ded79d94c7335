"""The benchmark of TransMiter's cost: it runs, and its plain implementation is what it says."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed" / "transmiter.py"


def test_the_plain_implementation_is_an_orthogonal_map_that_starts_at_the_identity():
    model = runpy.run_path(str(SCRIPT))["Published"](16)
    logits = torch.randn(5, 16)
    torch.testing.assert_close(model(logits), logits, atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in model.basis.parameters():
            parameter.add_(torch.randn_like(parameter))
    torch.testing.assert_close(model.basis.weight @ model.basis.weight.T, torch.eye(16), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_every_cost_is_measured(tmp_path):
    command = [sys.executable, str(SCRIPT), "--quick", "--threads", "1", "--out", str(tmp_path / "speed.json")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed.json").read_text())
    assert set(found["step_ms"]) == {"fixed", "learned", "matrix exponential"}
    assert set(found["memory_mb"]) == {"1000", "2000"}
    assert found["inference"]["gmac"] > 0
    assert "transfer, 2,000 rows" in done.stdout
