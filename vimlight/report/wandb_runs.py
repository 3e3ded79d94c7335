"""Weights & Biases: where it refuses or cannot be reached, a run goes on and is kept on this disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from vimlight.errors import ConfigError
from vimlight.masking import masked, masked_words
from vimlight.report.facts import Facts, facts_of

__all__ = ["open_runs", "open_wandb"]

# Seconds; its own 90 are long where nothing answers. Whoever sets the variable has their way.
_PATIENCE = "20"


def open_runs(loggers: Iterable[Logger], config: Mapping[str, Any]) -> None:
    """Starts the runs of W&B among some loggers, before there is work that its refusal could end.

    Name, group, tags and kind of a run follow from model, data, shots and seed, unless the logger is given its own.

    Args:
        loggers: The loggers of a trainer.
        config: The config of the run.

    Raises:
        ConfigError: If it can be kept neither there nor here.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _name(logger, facts_of(config))
            open_wandb(lambda logger=logger: logger.experiment)  # type: ignore[misc]


def _name(logger: WandbLogger, facts: Facts) -> None:
    """Gives a run the name that its facts make, where it has none; the logger hands on what it holds here."""
    found = {"name": facts.name, "group": facts.group, "tags": facts.tags, "job_type": facts.stage}
    for key, value in found.items():
        if value and logger._wandb_init.get(key) is None:
            logger._wandb_init[key] = value
    logger._name = logger._wandb_init.get("name")


def open_wandb(start: Callable[[], Any]) -> Any:
    """Starts a run of W&B; an offline one, as all after it, where it refuses or cannot be reached, which is said.

    Args:
        start: Starts it, as `wandb.init` does.

    Raises:
        ConfigError: If it can be kept neither there nor here.
    """
    import wandb
    from wandb.errors import Error

    os.environ.setdefault("WANDB_INIT_TIMEOUT", _PATIENCE)
    try:
        with _masked_command():
            return start()
    except Error as error:
        refusal = masked(" ".join(str(error).partition("\n")[0].split()))
    os.environ["WANDB_MODE"] = "offline"
    # It would go by what it read of the environment before.
    wandb.teardown()
    try:
        with _masked_command():
            run = start()
    except Error as error:
        raise ConfigError(f"W&B starts no run ({refusal}), not even offline; leave the logger out") from error
    kept = Path(run.dir).parent
    rank_zero_warn(f"W&B starts no run ({refusal}); it is kept offline, and 'wandb sync {kept}' uploads it later")
    return run


@contextmanager
def _masked_command() -> Iterator[None]:
    """Hides what is secret in the command line, which is kept with every run."""
    words = sys.argv
    sys.argv = masked_words(words)
    try:
        yield
    finally:
        sys.argv = words
