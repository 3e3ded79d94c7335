"""Engines: what is asked of them, and that what comes out is the same to the bit wherever jobs run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import ExitStack

import pytest
from test_compare_command import results
from tiny_plans import write

from vimlight import cli
from vimlight.comparison import running
from vimlight.comparison.executors import EXECUTORS, open_executor
from vimlight.comparison.executors.local import cores, local_executor
from vimlight.comparison.work import Work, run
from vimlight.errors import ConfigError, JobError, UnknownNameError


@pytest.mark.parametrize(
    ("name", "address", "text"),
    [
        ("dusk", None, "unknown executor 'dusk'; did you mean 'dask'"),
        ("dask", None, "--executor dask needs --address tcp://HOST:PORT"),
        ("local", "tcp://a:1", "--address is Dask's; leave it out, or use --executor dask instead of local"),
        ("slurm", "tcp://a:1", "--address is Dask's"),
    ],
)
def test_mistakes_are_named(tmp_path, name, address, text):
    with pytest.raises((ConfigError, UnknownNameError), match=text), open_executor(
        name, 1, address=address, folder=tmp_path
    ):
        pass


@pytest.mark.parametrize("name", [name for name in EXECUTORS if name != "local"])
def test_engines_that_are_not_installed_are_named(tmp_path, monkeypatch, name):
    for package in ("distributed", "submitit"):
        monkeypatch.setitem(sys.modules, package, None)
    address = "tcp://127.0.0.1:1" if name == "dask" else None
    with pytest.raises(ConfigError, match=rf"pip install 'vimlight\[{name}\]'"), open_executor(
        name, 1, address=address, folder=tmp_path
    ):
        pass


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")

    def silent(address, timeout):
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", silent)
    with (
        pytest.raises(ConfigError, match=r"no scheduler of Dask answers at tcp://127\.0\.0\.1:1; start one"),
        open_executor("dask", 1, address="tcp://127.0.0.1:1", folder=tmp_path),
    ):
        pass


def test_slurm_needs_its_commands(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match="there is no sbatch here"), open_executor(
        "slurm", 1, address=None, folder=tmp_path
    ):
        pass


def test_there_are_no_more_processes_than_jobs_and_cores():
    with local_executor(1) as one:
        assert one._max_workers == 1
    with local_executor(10_000) as many:
        assert many._max_workers == cores()
    with local_executor(10_000, workers=3) as three:
        assert three._max_workers == 3


@pytest.mark.slow
def test_a_worker_that_is_ended_from_outside_is_named():
    from concurrent.futures import wait

    from vimlight.comparison.running import _check

    with local_executor(1) as pool:
        future = pool.submit(os._exit, 9)
        wait([future])
        with pytest.raises(JobError, match=r"a worker was ended from outside.* while birds was under way"):
            _check(future, Work(None, (), "birds", "file"))


@pytest.mark.slow
def test_jobs_of_a_cluster_come_back(tmp_path):
    pytest.importorskip("submitit")
    from vimlight.comparison.executors.slurm import slurm_executor

    with slurm_executor(tmp_path, cluster="local") as executor:
        assert executor.submit(sorted, [2, 1]).result(120) == [1, 2]
        with pytest.raises(Exception, match="invalid literal"):
            executor.submit(int, "x").result(120)


def started(stack, command, *words):
    """Starts a command of Dask's, which ends with the stack."""
    code = f"from distributed.cli.dask_{command} import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_dask_with_a_worker_killed_within_a_job_gives_the_same_table_to_the_bit(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    plan = write(tmp_path, methods=["none", "ens_moe", "uniform"], seeds=[0, 1])
    cli.main(["compare", plan, "--out", str(tmp_path / "local")])
    monkeypatch.undo()
    out, file = tmp_path / "dask", tmp_path / "scheduler.json"
    with ExitStack() as stack:
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        started(stack, "scheduler", *options)
        deadline = time.monotonic() + 120
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        address = json.loads(file.read_text())["address"]
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
        workers = [started(stack, "worker", address, *options) for _ in range(2)]
        command = ["compare", plan, "--out", str(out), "--executor", "dask", "--address", address]
        comparing = subprocess.Popen([sys.executable, "-m", "vimlight", *command])
        stack.callback(comparing.kill)
        while not list(out.glob("results/*.json")) and comparing.poll() is None:
            time.sleep(0.05)
        workers[0].send_signal(signal.SIGKILL)
        assert comparing.wait(600) == 0
    assert results(out) == results(tmp_path / "local")
    assert len(results(out)) == 6


def test_a_job_that_is_told_to_end_ends_its_process(monkeypatch):
    ended = []
    monkeypatch.setattr("vimlight.comparison.work.settle", lambda: sys.exit(143))
    monkeypatch.setattr(os, "_exit", ended.append)
    run(Work(None, (), "birds", "file"))
    assert ended == [143]


@pytest.mark.parametrize(("tasks", "samples", "jobs"), [(20, 3, 20), (2, 6, 8), (1, 3, 9), (1, 1, 4)])
def test_a_worker_gets_the_samples_of_one_task(monkeypatch, tasks, samples, jobs):
    monkeypatch.setattr(running, "cores", lambda: 2)
    group = namedtuple("Group", ["about", "seed"])
    fit = namedtuple("Fit", ["group", "method"])
    groups = [
        [fit(group(f"task {task}", seed), method) for method in range(4)]
        for task in range(tasks)
        for seed in range(samples)
    ]
    found = running._spread(groups)
    assert sorted(one for job in found for one in job) == sorted(one for fits in groups for one in fits)
    assert {len({one.group.about for one in job}) for job in found} == {1}
    # One task after the other, and enough jobs for the cores.
    assert len(found) == jobs
    names = {running._named(job) for job in found}
    assert all(name.startswith("task ") or name.startswith("Group(") for name in names)
    assert ("task 0, 3 samples" in names) == (tasks == 20)
