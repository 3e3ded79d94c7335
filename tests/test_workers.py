"""Worker processes find everything imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from concurrent.futures import ProcessPoolExecutor
from vimlight.workers import prepare_workers, worker_context

def known():
    return "colorsys" in sys.modules

if __name__ == "__main__":
    prepare_workers(["colorsys"])
    for _ in range(2):
        with ProcessPoolExecutor(1, worker_context()) as pool:
            print(pool.submit(known).result(), "colorsys" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker imports for itself")
def test_what_is_prepared_is_imported_once_for_all_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["True False", "True False"]
