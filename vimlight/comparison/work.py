"""One job, as it arrives in whatever process runs it."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import threading
from collections.abc import Sequence
from functools import partial

from vimlight.comparison.processes import ending, settle
from vimlight.comparison.pulse import Pulse
from vimlight.comparison.study import Fit, ModuleJob, Study

__all__ = ["Work", "run"]

# Workers of some engines run jobs in threads; randomness and hooks are the process's.
_ONE_AT_A_TIME = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Work:
    """A job with all that it needs.

    Attributes:
        study: The study.
        job: A module to be trained, or fits of one group.
        name: Its name.
        file: Name of the file that tells how far it is.
        extensions: Modules of the user's own to import, and where they are looked for.
    """

    study: Study
    job: ModuleJob | Sequence[Fit]
    name: str
    file: str
    extensions: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


def run(work: Work) -> None:
    """Does a job; what comes out lies in the study's folder.

    Args:
        work: The job.
    """
    with _ONE_AT_A_TIME:
        ending(partial(_do, work))


def _do(work: Work) -> None:
    sys.path.extend(place for place in work.places if place not in sys.path)
    for name in work.extensions:
        importlib.import_module(name)
    settle()
    fits = 1 if isinstance(work.job, ModuleJob) else len(work.job)
    pulse = Pulse(work.study.folder / ".running" / work.file, fits)
    try:
        if isinstance(work.job, ModuleJob):
            from vimlight.comparison.modules import train_module

            train_module(work.study, work.job, pulse)
        else:
            from vimlight.comparison.fits import fit_group

            fit_group(work.study, work.job, pulse)
    finally:
        pulse.end()
