"""`vimlight zoo rank`: what each module is worth for a task, as `fit` finds it before it trains any gates."""

from __future__ import annotations

from collections.abc import Sequence

from vimlight.commands.output import print_json, print_table
from vimlight.commands.train import TrainingCLI, quietly
from vimlight.comparison.costs import added_by
from vimlight.errors import ConfigError
from vimlight.training.downstream import DownstreamModule

__all__ = ["rank"]

_HEADINGS = ("rank", "module", "left-out error", "less than bare", "images", "LogME", "parameters", "MFLOP")


class _RankingCLI(TrainingCLI):
    """`fit` without loggers, checkpoints and steps."""

    def before_fit(self) -> None:
        """Leaves of the training what comes before its first step.

        Raises:
            ConfigError: If the model ranks no zoo.
        """
        model, trainer = self.model, self.trainer
        if not isinstance(model, DownstreamModule):
            raise ConfigError(f"{type(model).__name__} ranks no zoo; take the config of a DownstreamModule")
        if model.start != "ranking" or not model.task.ranks or not model.module_names:
            raise ConfigError(f"this {model.task.kind} task ranks no modules: start: ranking and a zoo are needed")
        model.check_data(self.datamodule)
        model.ranks_evidence = True
        trainer.callbacks[:], trainer.loggers = [], []  # type: ignore[attr-defined]  # the trainer has them all the same
        trainer.fit_loop.max_epochs, trainer.num_sanity_val_steps = 0, 0


def rank(words: Sequence[str], zoo: str | None, json: bool) -> None:
    """Ranks the modules of a zoo for a task, and prints it; nothing is trained and nothing is written.

    Args:
        words: A config and options of `vimlight fit`.
        zoo: Directory of the zoo, where it is not the config's.
        json: Whether to print JSON.

    Raises:
        ConfigError: If the config is wrong, or its model ranks no zoo.
    """
    asked = ["fit", *words, *([] if zoo is None else ["--model.zoo", zoo])]
    with quietly():
        cli = _RankingCLI(asked)
    model, ranking = cli.model, cli.model.ranking
    if not cli.trainer.is_global_zero or ranking is None:
        return
    costs = added_by(((name, model.zoo.load(name, model.backbone)) for name in ranking.modules), model.backbone)
    rows = [[*row, ranking.evidence[row[1]], *costs.get(row[1], (0, 0.0))] for row in ranking.rows()]
    if json:
        columns = [*ranking.columns(), "logme", "parameters", "mflop"]
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    print_table(_HEADINGS, [_cells(*row) for row in rows])


def _cells(place: int, name: str, error: float, less: float, images: int, *more: float) -> list[str]:
    evidence, parameters, mflop = more
    judged = [str(place), name, f"{error:.4f}", f"{less:+.4f}", str(images), f"{evidence:.4f}"]
    return [*judged, f"{parameters:.0f}", f"{mflop:.2f}"]
