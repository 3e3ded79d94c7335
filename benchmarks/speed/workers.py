"""Many small modules on several workers, as `vimlight compare` trains them, beside one after the other."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.results import Comparison
from vimlight.commands.compare import FOR_WORKERS
from vimlight.workers import prepare_workers

_ONE = "one after the other"


@BENCHMARKS.register("workers")
def workers(
    bench: Bench, *, modules: int, workers: int, images: int, epochs: int, bars: Mapping[str, float]
) -> Iterator[Comparison]:
    """Trains the same modules in one process, and on workers in another one: as many as there are cores, and as asked.

    The time by the clock counts from the start of a process to its last module, so that importing and starting workers
    counts; that of workers counts as often as there are cores for them. Processor time is that of the jobs.

    Args:
        bench: Where.
        modules: How many modules.
        workers: How many processes.
        images: Training images of each.
        epochs: How often each sees them.
        bars: What is asked of the `ratio`.
    """
    from vimlight.comparison.executors.local import cores

    content = json.dumps(_content(modules, images, epochs))
    times = {_ONE: _timed(bench.scratch / "alone", content, 0)}
    for count in sorted({min(workers, cores()), workers}):
        used = min(count, cores())
        clock, processor = _timed(bench.scratch / f"by {count}", content, count)
        times[f"{count} workers on {used} cores"] = (used * clock, processor)
    rows = bench.rows([times], _ONE, {name: bars["ratio"] for name in times if name != _ONE})
    yield Comparison(f"{modules} modules, {epochs} epochs of {images} images each", _ONE, 1, rows)


def _timed(folder: Path, content: str, workers: int) -> tuple[float, float]:
    """Returns the seconds that a process takes to train the modules of a plan, and the processor time of its jobs."""
    start = time.time()
    # Workers import what a process was started as, which would register this benchmark again.
    begin = f"from {__name__} import train; train()"
    command = [sys.executable, "-c", begin, folder, content, str(workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    end, processor = json.loads(done.stdout.splitlines()[-1])
    return end - start, processor


def train() -> None:
    """Trains the modules of a plan, and prints when that was done, and the processor time that it took."""
    folder, content, workers = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    if workers:
        # What is imported from here on, the workers' server imports beside it.
        prepare_workers(FOR_WORKERS)
    from vimlight.comparison.reading import plan_of
    from vimlight.comparison.study import Study

    study = Study.of(plan_of(content), folder)
    print(json.dumps(_on_workers(study, workers) if workers else _alone(study)))


def _alone(study: Any) -> tuple[float, float]:
    from vimlight.comparison.processes import settle
    from vimlight.comparison.running import pending_modules
    from vimlight.comparison.work import Work, run

    settle()
    start = time.process_time()
    for number, job in enumerate(pending_modules(study)):
        run(Work(study, job, str(job), f"module-{number}"))
    return time.time(), time.process_time() - start


def _on_workers(study: Any, workers: int) -> tuple[float, float]:
    from vimlight.comparison.executors.local import local_executor
    from vimlight.comparison.running import run_study

    stages: list[tuple[float, float]] = []

    @contextmanager
    def opened(jobs: int) -> Iterator[Executor]:
        with local_executor(jobs, workers) as executor:
            timed = Timed(executor)
            yield timed
        stages.append((time.time(), timed.processor()))

    run_study(study, opened)
    # The modules come first.
    return stages[0]


class Timed(Executor):
    """An executor that notes how much processor time its jobs take.

    Args:
        executor: Who runs them.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor, self._jobs = executor, list[Future[float]]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submits a job."""
        self._jobs.append(self._executor.submit(_processor, fn, *args, **kwargs))
        return self._jobs[-1]

    def processor(self) -> float:
        """Returns the processor seconds of all jobs, which are done."""
        return sum(job.result() for job in self._jobs)


def _processor(job: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    start = time.process_time()
    job(*args, **kwargs)
    return time.process_time() - start


def _content(modules: int, images: int, epochs: int) -> dict[str, Any]:
    """Returns a plan of drawn tasks, each with scenes of its own."""
    drawn = {"task": "shapes", "train": images, "test": 16, "size": 32}
    return {
        "backbone": {"name": "test_vit", "pretrained": False, "img_size": 32},
        "plugin": {"kind": "convpass", "hidden": 2},
        "midstream": [
            {"name": f"shapes-{seed}", "dataset": "scenes", "dataset_args": {**drawn, "seed": seed}, "epochs": epochs}
            for seed in range(modules)
        ],
        "downstream": [{"name": "digits", "dataset": "digits", "test_limit": 20}],
        "methods": ["none", "uniform"],
        "shots": 1,
        "seeds": [0],
        "accelerator": "cpu",
        "precision": "32-true",
    }
