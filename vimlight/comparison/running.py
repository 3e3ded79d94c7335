"""Runs what of a plan is still to be done: first the modules, then the fits."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager

from vimlight.comparison.executors.local import cores
from vimlight.comparison.modules import make_ready
from vimlight.comparison.pulse import parts_under_way, sweep_pulses
from vimlight.comparison.study import ModuleJob, Study
from vimlight.comparison.work import RUNNING, AnyStudy, Job, Work, run
from vimlight.errors import JobError, VimlightError
from vimlight.extensions import imported
from vimlight.progress import Progress
from vimlight.trust import trusted
from vimlight.workers import stop_on_signals

__all__ = ["Opened", "Shard", "pending_fits", "pending_modules", "run_study"]

Opened = Callable[[int], AbstractContextManager[Executor]]
"""Opens an executor for a number of jobs."""
Shard = tuple[int, int]
"""Which of how many equal shares, counted from 1."""
_LOOK = 1.0
# So many that nobody waits long for the last ones.
_JOBS_A_CORE = 4


def pending_modules(study: AnyStudy, shard: Shard = (1, 1)) -> list[ModuleJob]:
    """Lists the modules that are still to be trained; a shard begins with its own share, and needs all of them.

    Args:
        study: The study.
        shard: The shard.
    """
    if not isinstance(study, Study):
        return []
    jobs = study.module_jobs()
    own = jobs[shard[0] - 1 :: shard[1]]
    return [job for job in [*own, *(job for job in jobs if job not in own)] if study.hash_of(job) is None]


def pending_fits(study: AnyStudy, shard: Shard = (1, 1)) -> list[list[Job]]:
    """Lists the fits that are still to be done, group by group.

    Args:
        study: The study.
        shard: The shard.
    """
    by_group: dict[str, list[Job]] = {}
    for fit in study.jobs(shard):
        if not fit.key or fit.key not in study.results:
            by_group.setdefault(str(fit.group), []).append(fit)
    return list(by_group.values())


def run_study(
    study: AnyStudy, opened: Opened, shard: Shard = (1, 1), done: Callable[[Sequence[Job]], None] | None = None
) -> None:
    """Does all that is still to be done.

    Args:
        study: The study.
        opened: Opens the executor.
        shard: The shard.
        done: Called in this process with the fits of every job that is done.

    Raises:
        JobError: If a worker was ended from outside.
        SystemExit: With code 130 or 143 after Ctrl-C or a request to end; the workers have ended by then.
    """
    sweep_pulses(study.folder / RUNNING)
    with stop_on_signals():
        modules = pending_modules(study, shard)
        _run_all(study, "midstream", [(str(job), job) for job in modules], opened)
        if isinstance(study, Study):
            make_ready(study)
        groups = _spread(pending_fits(study, shard))
        stage = "downstream" if isinstance(study, Study) else "transfers"
        _run_all(study, stage, [(_named(fits), fits) for fits in groups], opened, done)


def _spread(groups: list[list[Job]]) -> list[list[Job]]:
    """Makes jobs of groups: a worker gets those of one task, whose features it remembers, as far as cores stay busy."""
    tasks: dict[str, list[list[Job]]] = {}
    for fits in groups:
        tasks.setdefault(fits[0].group.about, []).append(fits)
    parts = math.ceil(_JOBS_A_CORE * cores() / max(1, len(tasks)))
    return [job for members in tasks.values() for job in _dealt(members, parts)]


def _named(fits: list[Job]) -> str:
    groups = {str(fit.group): None for fit in fits}
    return next(iter(groups)) if len(groups) == 1 else f"{fits[0].group.about}, {len(groups)} samples"


def _dealt(groups: list[list[Job]], parts: int) -> list[list[Job]]:
    """Deals groups out to jobs; where there are fewer groups than jobs, each is split."""
    if len(groups) >= parts:
        return [[fit for fits in groups[number::parts] for fit in fits] for number in range(parts)]
    pieces = math.ceil(parts / len(groups))
    return [piece for fits in groups for number in range(pieces) if (piece := fits[number::pieces])]


def _run_all(
    study: AnyStudy,
    stage: str,
    jobs: Sequence[tuple[str, ModuleJob | list[Job]]],
    opened: Opened,
    done: Callable[[Sequence[Job]], None] | None = None,
) -> None:
    if not jobs:
        return
    extensions, places = imported()
    mine = uuid.uuid4().hex[:8]  # shards may share the folder
    works = [
        Work(study, job, name, f"{stage}-{mine}-{number}", extensions, places, trusted())
        for number, (name, job) in enumerate(jobs)
    ]
    with Progress(stage, len(works), sys.stdout) as progress, opened(len(works)) as executor:
        waiting = {executor.submit(run, work): work for work in works}
        while waiting:
            finished, _ = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
            works = [waiting.pop(one) for one in list(waiting) if one in finished and _check(one, waiting[one])]
            progress.within(parts_under_way(study.folder / RUNNING, [work.file for work in waiting.values()]))
            for work in works:
                progress.advance(work.name)
                if done is not None and not isinstance(work.job, ModuleJob):
                    done(work.job)


def _check(future: Future[None], work: Work) -> bool:
    """Returns that a job is done, or raises why not."""
    try:
        future.result()
        return True
    except VimlightError as error:
        error.args = (f"{work.name}: {error}",)
        raise
    except BrokenExecutor as error:
        raise JobError(
            f"a worker was ended from outside, perhaps for want of memory, while {work.name} was under way or waited; "
            "the same command goes on from there"
        ) from error
