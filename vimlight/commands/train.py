"""`vimlight fit|validate|test|predict`: LightningCLI with short class names and values linked from data to model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger

from vimlight import __version__
from vimlight.commands.mistakes import cause, explain
from vimlight.data import DownstreamDataModule, ImageDataModule, MidstreamDataModule
from vimlight.downstream import DownstreamModule
from vimlight.errors import CheckpointError, ConfigError, nearest
from vimlight.midstream import MidstreamModule
from vimlight.report.callbacks import RunReport
from vimlight.report.predictions import PredictionWriter
from vimlight.training import SupervisedModule

__all__ = ["TrainingCLI", "main"]

_CLASSES = (
    MidstreamModule,
    DownstreamModule,
    MidstreamDataModule,
    DownstreamDataModule,
    pl.Trainer,
    PredictionWriter,
    RunReport,
)


class RunConfig(SaveConfigCallback):
    """Writes the full config into the run's directory and shows it to every logger."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hands the config to the loggers as hyper-parameters."""
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):
                logger.log_hyperparams(self.config.as_dict())


class Parser(LightningArgumentParser):
    """A parser whose errors are one or two lines that name the key, the value and the nearest valid name."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raises the mistake as a `ConfigError`.

        Raises:
            ConfigError: Always.
        """
        own = cause(ex) if ex is not None else None
        raise own or ConfigError(explain(message, _CLASSES)) from ex


class TrainingCLI(LightningCLI):
    """LightningCLI for the two modules and their data."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            SupervisedModule,
            ImageDataModule,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            parser_kwargs={"version": __version__},
            # Optimiser and schedule are the model's own arguments: one way to set them.
            auto_configure_optimizers=False,
            args=list(arguments),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what the data knows to the model, and adds the callbacks that every run has."""
        parser.link_arguments("data.kind", "model.init_args.kind", apply_on="instantiate")
        parser.link_arguments("data.class_names", "model.init_args.class_names", apply_on="instantiate")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(RunReport, "report")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, which come from `vimlight.cli` rather than from `sys.argv`."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Refuses what would run on weights that were never trained."""
        settings = self.config[self.subcommand]
        checkpoint = settings.get("ckpt_path")
        if self.subcommand != "fit" and checkpoint is None:
            raise CheckpointError(f"{self.subcommand} needs trained weights; name them with --ckpt_path FILE")
        if checkpoint is not None and checkpoint not in ("best", "last") and not Path(checkpoint).exists():
            siblings = [path.name for path in Path(checkpoint).parent.glob("*")]
            close = nearest(Path(checkpoint).name, siblings, 1)
            raise CheckpointError(
                f"checkpoint {checkpoint!r} does not exist" + (f"; did you mean {close[0]!r}?" if close else "")
            )

    def instantiate_classes(self) -> None:
        """Creates the objects; a mistake that shows only then is said as briefly as one in the config.

        Raises:
            ConfigError: If an argument of a class is wrong.
        """
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            raise cause(error) or ConfigError(explain(str(error), _CLASSES)) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Adds a CSV logger in front of whatever loggers are configured: its directory is the run's."""
        settings = self.config[self.subcommand]["trainer"]
        chosen = self._get(self.config_init, "trainer.logger")
        if chosen is False:
            return super().instantiate_trainer(**kwargs)
        others: list[Logger] = [] if chosen in (None, True) else (chosen if isinstance(chosen, list) else [chosen])
        others = [logger for logger in others if not isinstance(logger, CSVLogger)]
        name = "fit" if self.subcommand == "fit" else self.subcommand
        root = settings.get("default_root_dir") or "runs"
        return super().instantiate_trainer(logger=[CSVLogger(root, name=name), *others], **kwargs)

    def _parse_ckpt_path(self) -> None:
        # Lightning lets a checkpoint's hyper-parameters win over the command line; here the command line wins.
        return


def main(arguments: Sequence[str]) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        arguments: The subcommand and its options.

    Raises:
        ConfigError: If the config is wrong.
    """
    TrainingCLI(arguments)
