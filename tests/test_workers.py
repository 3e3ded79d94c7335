"""Worker processes find everything imported."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

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


KILLED = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from vimlight.workers import end_with_parent, worker_context

def tell(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, worker_context(), initializer=end_with_parent) as pool:
        pool.submit(tell, 300).result()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="tells by /proc what runs")
def test_workers_end_with_the_process_that_they_work_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as running:
        worker = int(running.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        running.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
