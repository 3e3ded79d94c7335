"""`vimlight fit|validate|test|predict`: LightningCLI with short class names and values linked from data to model."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.data import AttributeDict
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vimlight import __version__
from vimlight.commands.catalogue import training_keys
from vimlight.commands.keys import typed_keys
from vimlight.commands.meeting import Meeting
from vimlight.commands.mistakes import Mistake, Raising, cause, explain, while_restoring
from vimlight.commands.output import one_line, print_table
from vimlight.data import DownstreamDataModule, ImageDataModule, MidstreamDataModule
from vimlight.errors import CheckpointError, ConfigError, VimlightError
from vimlight.files.atomic import check_writable
from vimlight.files.checkpoint_facts import stated_texts
from vimlight.files.checkpoint_files import CheckpointFiles
from vimlight.files.weight_file import first_line
from vimlight.masking import masked
from vimlight.report.agreement import Agreement
from vimlight.report.callbacks import RunReport
from vimlight.report.curves import RunCurves
from vimlight.report.dashboards import Dashboards
from vimlight.report.dashboards.mlflow import allow_file_store
from vimlight.report.facts import facts_of
from vimlight.report.folding import Folding
from vimlight.report.interruption import Interruption, same_signals_after
from vimlight.report.lineage import Lineage
from vimlight.report.lines import ProgressLines
from vimlight.report.opening import Opening, say_written
from vimlight.report.predictions import PredictionWriter
from vimlight.report.ranks import RankWatch, is_lost_peer, name_rank, wait_for_watch
from vimlight.report.run_directories import RunLogger
from vimlight.report.waiting import WaitMeter
from vimlight.trainable import TrainableModule, check_precision, read_checkpoint
from vimlight.training.base import SupervisedModule
from vimlight.training.downstream import DownstreamModule
from vimlight.training.halving import is_large
from vimlight.training.midstream import MidstreamModule
from vimlight.transmiter.cache.data_module import CacheDataModule
from vimlight.transmiter.learning.extraction import ExtractionModule
from vimlight.transmiter.learning.module import AdapterModule
from vimlight.transmiter.learning.refinement import RefinementModule
from vimlight.transmiter.sources.data import SourceDataModule
from vimlight.transmiter.sources.module import SourceModule
from vimlight.trust import check_made, guard_parsers
from vimlight.zoo.sharing.lock import LOCK, write_lock

__all__ = ["TrainingCLI", "main", "quietly"]

_MODELS = (MidstreamModule, DownstreamModule, ExtractionModule, RefinementModule, SourceModule)
_DATA = (MidstreamDataModule, DownstreamDataModule, CacheDataModule, SourceDataModule)
_BESIDE = {"predictions": PredictionWriter, "report": RunReport, "waiting": WaitMeter}


# What each family of modules learns from, and the data modules that bring none.
_LEARN_FROM = {
    SupervisedModule: ("images", CacheDataModule),
    AdapterModule: ("cached logits", ImageDataModule),
}
# What Lightning warns of and is meant here: a backbone that stays in eval mode, runs in which nothing takes steps by
# gradient, a checkpoint of another run, few workers (`WaitMeter` says where data are waited for), and its own use of
# the config parser.
_EXPECTED = (
    r"Found \d+ module\(s\) in eval mode",
    r"`LightningModule.configure_optimizers` returned `None`",
    r"`training_step` returned `None`",
    r"Total length of `list` across ranks is zero",
    r"The dirpath has changed from",
    r"The '\w+' does not have many workers",
    r"[\s\S]*was deprecated in v4\.",
    r"[\s\S]*JsonargparseDeprecationWarning",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


# What Lightning says of every run: advertisements, and what the config or a line of ours says as well.
_NO_NEWS = (
    "Tip: For seamless", "GPU available:", "TPU available:", "HPU available:", "Seed set to",
    "to estimate number of stepping batches", "`Trainer.fit` stopped: `max_", "Restoring states from the checkpoint",
    "Restored all states from the checkpoint", "Loaded model weights from the checkpoint",
)  # fmt: skip


class RunConfig(SaveConfigCallback):
    """Writes the full config, less what is secret in it, into the run's directory and shows it to every logger."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **options: Any) -> None:
        super().__init__(parser, masked(config), **options)

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hands the config to the loggers as hyper-parameters, and writes which modules of a zoo are used."""
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):
                logger.log_hyperparams(self.config.as_dict())
            elif stage == "fit" and isinstance(pl_module, DownstreamModule) and pl_module.module_names:
                write_lock(pl_module.zoo, pl_module.module_names, Path(logger.log_dir) / LOCK)


class Parser(Raising, LightningArgumentParser):
    """A parser whose errors are raised, for `TrainingCLI` to shorten."""


class TrainingCLI(LightningCLI):
    """LightningCLI for every module that is trained, and its data."""

    def __init__(self, arguments: Sequence[str], meeting: Meeting | None = None) -> None:
        self._asked, self._meeting = arguments[0], meeting
        self._words = list(arguments)
        super().__init__(
            TrainableModule,
            pl.LightningDataModule,
            save_config_callback=RunConfig,
            # Where there is no logger, runs share a directory; all others have one of their own.
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            parser_kwargs={"version": __version__, "allow_abbrev": False},
            # Optimiser and schedule are the model's own arguments: one way to set them.
            auto_configure_optimizers=False,
            args=list(arguments),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # a static method of Lightning
        """Returns the one that is asked for: to build the parsers of all takes longer than to read a config."""
        return {self._asked: LightningCLI.subcommands()[self._asked]}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults(verbose=False)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what the data knows to the model, and adds the callbacks that every run has.

        A link is passed over where the data does not know the thing or the model does not ask for it.
        """
        for name in ("kind", "class_names", "aux_names", "class_indices"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(RunReport, "report")
        parser.add_lightning_class_args(WaitMeter, "waiting")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, which come from `vimlight.cli` rather than from `sys.argv`.

        Raises:
            ConfigError: If one is wrong, or a config file is no text.
        """
        try:
            self.config = parser.parse_args(args)
        except Mistake as mistake:
            raise self._explained(mistake) from mistake
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(errors="replace").split("\n")
            raise ConfigError(
                f"a config file is no UTF-8 in line {len(before)}, behind {before[-1][-40:]!r}; save it as UTF-8"
            ) from error

    def before_instantiate_classes(self) -> None:
        """Refuses what would run on weights that were never trained, and takes up a checkpoint's modules.

        Raises:
            CheckpointError: If there is no checkpoint, or it cannot be read.
            ConfigError: If the config calls a function that is not trusted.
        """
        settings = self.config[self.subcommand]
        check_made(settings)
        allow_file_store()
        path = settings.get("ckpt_path")
        if path is None:
            if self.subcommand != "fit":
                raise CheckpointError(f"{self.subcommand} needs trained weights; name them with --ckpt_path FILE")
            return
        modules = stated_texts(read_checkpoint(path), "modules")
        # Not even looked at: modules that were added to the zoo since, and those of a large one that were left behind.
        asked = settings.get("model.init_args.modules", ())
        if modules is not None and (asked is None or (is_large(len(asked)) and set(modules) < set(asked))):
            settings["model.init_args.modules"] = list(modules)

    def instantiate_classes(self) -> None:
        """Creates the objects; a mistake that shows only then is said as briefly as one in the config.

        Raises:
            ConfigError: If an argument of a class is wrong.
        """
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException, Mistake) as error:
            raise self._explained(error) from error
        check_precision(self.trainer)
        for kind, (wanted, data) in _LEARN_FROM.items():
            if isinstance(self.model, kind) and isinstance(self.datamodule, data):
                names = type(self.model).__name__, type(self.datamodule).__name__
                raise ConfigError(f"{names[0]} learns from {wanted}, {names[1]} brings none; choose another data class")

    def after_instantiate_classes(self) -> None:
        """Hides what is secret in the settings that classes of one's own hand to loggers."""
        for each in (self.model, self.datamodule):
            if each is not None and each.hparams_initial:
                each._hparams_initial = AttributeDict(masked(dict(each.hparams_initial)))

    def before_fit(self) -> None:
        """Refuses, before anything is written, what could not be learnt, or not be stored after the training."""
        loggers = (each.root_dir for each in self.trainer.loggers if isinstance(each, CSVLogger))
        check_writable(Path(next(loggers, self.trainer.default_root_dir)))
        self.model.check_data(self.datamodule)
        self.model.check_storable()
        self.before_validate()

    def before_validate(self) -> None:
        """Starts what loggers keep elsewhere, before the work, and waits until all processes are ready for it."""
        facts = facts_of(self.config[self.subcommand].as_dict())
        Dashboards(self.trainer.loggers, self._root()).begin(facts)
        if self._meeting is not None:
            self._meeting.join()

    before_test = before_predict = before_validate

    def after_validate(self) -> None:
        """Prints the scores, in place of Lightning's table of numbers with sixteen digits."""
        if self.trainer.is_global_zero:
            scores = {name: value.item() for name, value in sorted(self.trainer.callback_metrics.items())}
            print_table(("score", "value"), [(name, one_line(value)) for name, value in scores.items()])

    after_test = after_validate

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Adds a CSV logger, unless there is one, in front of whatever others are configured; shows progress in a line.

        The logger's directory is the run's. The line stands for Lightning's bar, unless one was chosen and there is a
        terminal to draw it on, and a line for its table of modules, unless that was asked for. What a job of Slurm goes
        on from, once it is requeued, lies in a directory of its own, where no other job finds it.
        """
        if SLURMEnvironment.detect():
            kwargs["default_root_dir"] = str(self._root() / f"slurm_{_slurm_job()}")
        trainer = self._logging_trainer(plugins=self._plugins(), callbacks=self._callbacks(), **kwargs)
        chosen = [type(each) for each in self._chosen_callbacks()]
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for place, each in enumerate(callbacks):
            if isinstance(each, ProgressBar) and not (type(each) in chosen and sys.stderr.isatty()):
                callbacks[place] = ProgressLines()
        return trainer

    def _chosen_callbacks(self) -> list[pl.Callback]:
        chosen = self._get(self.config_init, "trainer.callbacks") or []
        return list(chosen) if isinstance(chosen, (list, tuple)) else [chosen]

    def _logging_trainer(self, **kwargs: Any) -> pl.Trainer:
        if self._get(self.config_init, "trainer.enable_model_summary") is None:
            kwargs["enable_model_summary"] = False
        chosen = self._get(self.config_init, "trainer.logger")
        if chosen is False:
            return super().instantiate_trainer(**kwargs)
        loggers: list[Logger] = [] if chosen in (None, True) else (chosen if isinstance(chosen, list) else [chosen])
        if not any(isinstance(logger, CSVLogger) for logger in loggers):
            loggers = [RunLogger(self._root(), name=self.subcommand), *loggers]
        return super().instantiate_trainer(logger=loggers, **kwargs)

    def _root(self) -> Path:
        return Path(self.config[self.subcommand]["trainer"].get("default_root_dir") or "runs")

    def _callbacks(self) -> list[pl.Callback]:
        """Returns the configured callbacks and those of every run.

        Of several processes each looks after the others; to train, a checkpoint is kept of each epoch and at a signal.
        """
        agreement = Agreement(self.config[self.subcommand].get("ckpt_path"))
        callbacks = [*self._chosen_callbacks(), RankWatch(), agreement, Opening()]
        if self.subcommand != "fit":
            return [*callbacks, Interruption()]
        callbacks += [RunCurves(self._get(self.config_init, "trainer.log_every_n_steps")), Lineage()]
        if self._get(self.config_init, "trainer.enable_checkpointing") is False:
            return callbacks
        if not any(isinstance(each, Checkpoint) for each in callbacks):
            callbacks.append(
                ModelCheckpoint(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
            )
        return [*callbacks, Interruption()]

    def _plugins(self) -> list[Any]:
        """Returns `trainer.plugins` and, unless there is one of its kind, what reads and writes checkpoints."""
        chosen = self._get(self.config_init, "trainer.plugins") or []
        plugins = list(chosen) if isinstance(chosen, (list, tuple)) else [chosen]
        own = [] if any(isinstance(each, CheckpointIO) for each in plugins) else [CheckpointFiles()]
        return [*plugins, *own]

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            with same_signals_after():
                super()._run_subcommand(subcommand)
        except VimlightError as error:
            if self.trainer.world_size > 1:
                name_rank(error, self.trainer.global_rank)
            raise
        except Exception as error:
            told = self._told(error)
            if told is None:
                raise
            raise told from error
        except SystemExit as error:
            # Lightning leaves with 0 and 1: a scheduler would take the first for success.
            if isinstance(error, SIGTERMException):
                raise SystemExit(128 + signal.SIGTERM) from error
            if isinstance(error.__context__, KeyboardInterrupt):
                raise SystemExit(128 + signal.SIGINT) from error
            raise

    def _told(self, error: Exception) -> VimlightError | None:
        """Returns what the user is told of an error of Lightning or torch; nothing of one that may be anything."""
        if isinstance(error, MisconfigurationException):
            return self._explained(error)
        if self.trainer.world_size > 1 and is_lost_peer(error):
            return wait_for_watch(error)
        # What Lightning keeps of a run is its own, and is taken up unchecked.
        if not while_restoring(error):
            return None
        path = str(self.config[self.subcommand].get("ckpt_path"))
        return CheckpointError(
            f"checkpoint {path!r} cannot be taken up, since it was altered or keeps weights alone "
            f"({type(error).__name__}: {first_line(error)})"
        )

    def _explained(self, error: Exception) -> VimlightError:
        if (own := cause(error)) is not None and not isinstance(own, Mistake):
            return own
        return ConfigError(explain(str(error), training_keys(_MODELS, _DATA, _BESIDE), typed_keys(self._words)))

    def _parse_ckpt_path(self) -> None:
        # Lightning lets a checkpoint's hyper-parameters win over the command line; here the command line wins.
        return


def main(arguments: Sequence[str], meeting: Meeting | None = None) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        arguments: The subcommand and its options.
        meeting: Where the processes of the command meet, if there may be several.

    Raises:
        ConfigError: If the config is wrong.
    """
    with quietly():
        made = TrainingCLI(arguments, meeting)
        say_written(made.trainer)


@contextmanager
def quietly() -> Iterator[None]:
    """Hides what Lightning says of every run, and lets its parser import nothing that is not trusted."""
    with ExitStack() as undo:
        for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
            logger = logging.getLogger(name)
            logger.addFilter(_is_news)
            undo.callback(logger.removeFilter, _is_news)
        for handler in logging.getLogger("lightning.pytorch").handlers:
            undo.callback(handler.setFormatter, handler.formatter)
            handler.setFormatter(Folding())
        undo.enter_context(warnings.catch_warnings())
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message)
        guard_parsers()
        yield


def _slurm_job() -> str:
    """Returns the number of this job of Slurm, which it keeps when it is requeued."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "0")


def _is_news(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _NO_NEWS)
