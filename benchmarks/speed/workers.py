"""Many small modules on several workers, as `vimlight compare` trains them, beside one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.results import Comparison
from vimlight.commands.compare import FOR_WORKERS
from vimlight.comparison.executors.local import cores, local_executor
from vimlight.comparison.processes import settle
from vimlight.comparison.reading import plan_of
from vimlight.comparison.running import pending_modules, run_study
from vimlight.comparison.study import Study
from vimlight.comparison.work import Work, run
from vimlight.workers import prepare_workers

_ONE = "one after the other"


@BENCHMARKS.register("workers")
def workers(
    bench: Bench, *, modules: int, workers: int, images: int, epochs: int, bars: Mapping[str, float]
) -> Iterator[Comparison]:
    """Trains the same modules in this process and on workers.

    The workers' time by the clock, their start included, counts as often as there are cores for them; processor time is
    that of their jobs.

    Args:
        bench: Where.
        modules: How many modules.
        workers: How many processes.
        images: Training images of each.
        epochs: How often each sees them.
        bars: What is asked of the `ratio`.
    """
    plan = plan_of(_content(modules, images, epochs))
    warm, alone, together = (Study.of(plan, bench.scratch / name) for name in ("warm", "alone", "together"))
    settle()
    _train(warm, limit=1)
    one, used = _train(alone), min(workers, cores())
    prepare_workers(FOR_WORKERS)
    stages: list[tuple[float, float]] = []

    @contextmanager
    def opened(jobs: int) -> Iterator[Executor]:
        start = time.perf_counter()
        with local_executor(jobs, workers) as executor:
            timed = Timed(executor)
            yield timed
        stages.append((used * (time.perf_counter() - start), timed.processor()))

    run_study(together, opened)
    many = f"{workers} workers on {used} cores"
    # The modules come first.
    rows = bench.rows([{_ONE: one, many: stages[0]}], _ONE, {many: bars["ratio"]})
    yield Comparison(f"{modules} modules, {epochs} epochs of {images} images each", _ONE, 1, rows)


class Timed(Executor):
    """An executor that notes how much processor time its jobs take.

    Args:
        executor: Who runs them.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor, self._jobs = executor, list[Future[float]]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submits a job."""
        self._jobs.append(self._executor.submit(_timed, fn, *args, **kwargs))
        return self._jobs[-1]

    def processor(self) -> float:
        """Returns the processor seconds of all jobs, which are done."""
        return sum(job.result() for job in self._jobs)


def _timed(job: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    start = time.process_time()
    job(*args, **kwargs)
    return time.process_time() - start


def _train(study: Study, limit: int | None = None) -> tuple[float, float]:
    jobs = pending_modules(study)[:limit]
    start = time.perf_counter(), time.process_time()
    for number, job in enumerate(jobs):
        run(Work(study, job, str(job), f"module-{number}"))
    return time.perf_counter() - start[0], time.process_time() - start[1]


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
