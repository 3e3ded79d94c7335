"""Worker processes find everything imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
from lightning.pytorch.trainer.connectors import data_connector
from tiny_training import midstream, scenes, tiny_backbone, trainer

from vimlight import workers
from vimlight.backbone import Preprocessing
from vimlight.commands.train import quietly
from vimlight.data import MidstreamDataModule
from vimlight.data.loading import BatchDataset, batch_loader, chunk_loader
from vimlight.workers import outlast_signals

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

LOADING = """
import os, time
import torch
from torch.utils.data import DataLoader
from vimlight.workers import outlast_signals

class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        print(os.getpid(), flush=True)
        time.sleep(300)

list(DataLoader(Slow(), num_workers=2, worker_init_fn=outlast_signals))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="tells by /proc what runs")
@pytest.mark.parametrize("script", [KILLED, pytest.param(LOADING, marks=pytest.mark.slow)], ids=["pool", "loader"])
def test_workers_end_with_the_process_that_they_work_for(tmp_path, script):
    file = tmp_path / "script.py"
    file.write_text(script)
    with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as running:
        worker = int(running.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        running.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are not forked")


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_reads_data_outlasts_signals_that_all_processes_get(number):
    preprocessing = Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3)
    data = MidstreamDataModule("digits", num_workers=1, batch_size=60, preprocessing=preprocessing)
    before, seen = set(multiprocessing.active_children()), 0
    for batch in data._loader(data.tables["val"]):
        for child in set(multiprocessing.active_children()) - before:
            os.kill(child.pid, number)
        seen += len(batch["id"])
    assert seen == len(data.tables["val"])


def _hang(ready):
    outlast_signals()
    ready.set()
    time.sleep(60)


@needs_fork
def test_what_hangs_ends_a_while_after_it_is_told_to(monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 1)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_hang, args=(ready,))
    child.start()
    assert ready.wait(20)
    child.terminate()
    child.join(20)
    assert child.exitcode == -signal.SIGALRM


def test_there_are_no_more_workers_than_cores(monkeypatch, recwarn):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    dataset = BatchDataset(None, None)
    monkeypatch.setattr(BatchDataset, "__len__", lambda _: 8)
    loaders = [batch_loader(dataset, 2, 9, None, pin_memory=False), chunk_loader(dataset, [[0], [1]], 9)]
    assert [loader.num_workers for loader in loaders] == [2, 2]
    assert [batch_loader(dataset, 2, number, None, pin_memory=False).num_workers for number in (0, 1)] == [0, 1]
    assert not recwarn


@pytest.mark.parametrize("at_command_line", [True, False])
def test_cores_that_read_nothing_are_no_news_at_the_command_line(tmp_path, monkeypatch, at_command_line):
    monkeypatch.setattr(data_connector, "suggested_max_num_workers", lambda _: 8)
    data = scenes(train=16)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with quietly() if at_command_line else nullcontext():
            trainer(tmp_path).fit(midstream(tiny_backbone(), data), datamodule=data)
    assert bool([each for each in warned if "many workers" in str(each.message)]) == (not at_command_line)
