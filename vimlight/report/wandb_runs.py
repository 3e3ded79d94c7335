"""Weights & Biases: where it refuses or cannot be reached, a run goes on and is kept on this disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from vimlight.errors import ConfigError
from vimlight.masking import masked, masked_words

__all__ = ["open_wandb"]

# Seconds; its own 90 are long where nothing answers. Whoever sets the variable has their way.
_PATIENCE = "20"


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
