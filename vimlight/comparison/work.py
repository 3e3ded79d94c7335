"""One job, as it arrives in whatever process runs it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import threading
from collections.abc import Sequence

import timm
import torch

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
    try:
        with _ONE_AT_A_TIME:
            _settle(work)
            _do(work)
    except SystemExit as error:
        # Told to end: a pool would take this for the job's result, and start the next one.
        os._exit(error.code if isinstance(error.code, int) else 1)


def _settle(work: Work) -> None:
    """Makes this process compute as all others do."""
    sys.path.extend(place for place in work.places if place not in sys.path)
    for name in work.extensions:
        importlib.import_module(name)
    if not torch.cuda.is_available():
        # The order of sums is the same everywhere, and many small processes are faster than many threads.
        torch.set_num_threads(1)
        # On a processor and with few tokens, plain attention trains almost twice as fast as the fused kernel.
        timm.layers.set_fused_attn(False)


def _do(work: Work) -> None:
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
