"""A directory for every run, which no other run has."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from vimlight.errors import ConfigError
from vimlight.files.leftovers import sweep

__all__ = ["RunLogger", "claim"]


class RunLogger(CSVLogger):
    """A CSV logger whose directory is one run's alone, however many are started at the same moment."""

    _claimed: int | None = None

    @property
    def version(self) -> int | str:
        """The number of the run; it is taken when it is first asked for, after all that may be refused."""
        # The other processes of a run write to the directory of the first.
        if getattr(rank_zero_only, "rank", 0):
            return super().version
        if self._claimed is None:
            self._claimed = claim(Path(self.root_dir))
        return self._claimed


def claim(runs: Path) -> int:
    """Makes the directory of a new run, which nobody else has, and returns its number.

    Args:
        runs: The directory of all runs.

    Raises:
        ConfigError: If it cannot be made.
    """
    others = [path for path in runs.glob("version_*") if path.name[8:].isdigit()]
    for path in others:
        # Who was killed in a directory of its own leaves there what nobody else would sweep.
        sweep(path)
        sweep(path / "checkpoints")
    number = max((int(path.name[8:]) for path in others), default=-1) + 1
    while True:
        try:
            (runs / f"version_{number}").mkdir(parents=True)
        except FileExistsError:
            if (runs / f"version_{number}").is_dir():
                number += 1
                continue
            raise ConfigError(f"no run can be written to {str(runs)!r}: a file is in the way") from None
        except OSError as error:
            raise ConfigError(
                f"no run can be written to {str(runs)!r}: {error.strerror}; set trainer.default_root_dir"
            ) from error
        return number
