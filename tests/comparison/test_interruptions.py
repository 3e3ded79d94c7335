"""Runs that are broken off: the workers end, nothing is half-written, and the rest is as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_compare_command import results
from tiny_plans import write

from vimlight import cli

SIGNALS = """
import signal, sys, time, threading, os
from vimlight.workers import stop_on_signals
threading.Timer(0.2, os.kill, (os.getpid(), int(sys.argv[1]))).start()
with stop_on_signals():
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_with_the_customary_code(number):
    start = time.monotonic()
    command = [sys.executable, "-c", SIGNALS, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number
    assert time.monotonic() - start < 20
    assert not done.stderr


WORKERS = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from vimlight.workers import ending_workers, leave_signals_to_parent, worker_context

if __name__ == "__main__":
    import os
    with ending_workers():
        pool = ProcessPoolExecutor(1, worker_context(), initializer=leave_signals_to_parent)
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 300)
        raise SystemExit(7)
"""


def test_workers_end_when_an_error_leaves_the_block(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WORKERS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 7
    assert not Path(f"/proc/{int(done.stdout)}").exists()


def running_below(parent):
    """Returns the processes that are descended from one, as /proc tells."""
    found, parents = [], {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(text.rpartition(")")[2].split()[1])
    todo = [parent]
    while todo:
        todo = [process for process, above in parents.items() if above in todo]
        found += todo
    return found


def wait_for(condition, seconds=400):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tells by /proc what runs")
@pytest.mark.usefixtures("in_process")
def test_a_run_that_is_broken_off_ends_its_workers_and_goes_on(tmp_path):
    plan = write(tmp_path, methods=["none", "ens_moe", "module_alone"], seeds=[0, 1])
    command = [sys.executable, "-m", "vimlight", "compare", plan, "--out"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with subprocess.Popen([*command, str(broken)], stdout=subprocess.DEVNULL, start_new_session=True) as running:
        wait_for(lambda: len(list(broken.glob("results/*.json"))) >= 1)
        workers = running_below(running.pid)
        assert workers
        start = time.monotonic()
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(60) == 143
    # On an idle machine within 5 seconds; others may be at work on that of a test.
    assert time.monotonic() - start < 20
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 30)
    assert not list(broken.rglob("*.tmp"))
    assert not list((broken / ".running").iterdir())
    assert 1 <= len(list(broken.glob("results/*.json"))) < 6
    for folder in (broken, whole):
        cli.main(["compare", plan, "--out", str(folder)])
    assert results(broken) == results(whole)
