"""One job, as it arrives in whatever process runs it."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vimlight.comparison.entries import Plan
from vimlight.comparison.processes import ending, settle
from vimlight.comparison.pulse import Pulse
from vimlight.comparison.study import Fit, ModuleJob, Study
from vimlight.comparison.transfers.plan import Transfers
from vimlight.comparison.transfers.study import Move, TransferStudy
from vimlight.trust import guard_parsers, trust_only

__all__ = ["RUNNING", "AnyStudy", "Job", "Work", "run", "study_of"]

AnyStudy = Study | TransferStudy
Job = Fit | Move

# Where jobs tell how far they are, below a study's folder.
RUNNING = ".running"
# Workers of some engines run jobs in threads; randomness and hooks are the process's.
_ONE_AT_A_TIME = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Work:
    """A job with all that it needs.

    Attributes:
        study: The study.
        job: A module to be trained, or fits of one group, or transfers.
        name: Its name.
        file: Name of the file that tells how far it is.
        extensions: Modules of the user's own to import, and
        places: where they are looked for.
        trusted: What else a config may name, if that is limited.
    """

    study: AnyStudy
    job: ModuleJob | Sequence[Job]
    name: str
    file: str
    extensions: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    trusted: tuple[str, ...] | None = None


def study_of(plan: Plan | Transfers, folder: Path, *, download: bool = True) -> AnyStudy:
    """Opens what a plan names; see `Study.of` and `TransferStudy.of`."""
    return Study.of(plan, folder, download=download) if isinstance(plan, Plan) else TransferStudy.of(plan, folder)


def run(work: Work) -> None:
    """Does a job; what comes out lies in the study's folder.

    Args:
        work: The job.
    """
    with _ONE_AT_A_TIME:
        ending(partial(_do, work))


def _do(work: Work) -> None:
    sys.path.extend(place for place in work.places if place not in sys.path)
    trust_only(work.trusted)
    guard_parsers()
    for name in work.extensions:
        importlib.import_module(name)
    settle()
    steps = 1 if isinstance(work.job, ModuleJob) else len(work.job)
    pulse = Pulse(work.study.folder / RUNNING / work.file, steps)
    try:
        _begin(work.study, work.job, pulse)
    finally:
        pulse.end()


def _begin(study: Any, job: Any, pulse: Pulse) -> None:
    """Does a job by the means of its study's kind, which are imported where they are needed."""
    if isinstance(study, TransferStudy):
        from vimlight.comparison.transfers.moving import move_group

        for move in job:
            move_group(study, move, pulse)
    elif isinstance(job, ModuleJob):
        from vimlight.comparison.modules import train_module

        train_module(study, job, pulse)
    else:
        from vimlight.comparison.fits import fit_group

        fit_group(study, job, pulse)
