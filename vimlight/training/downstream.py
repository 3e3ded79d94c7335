"""Downstream: a zoo is aggregated for one small task by a few learned gates and a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from vimlight.aggregation import AGGREGATORS, aggregate
from vimlight.aggregation.ranking import Ranking
from vimlight.backbone import Backbone
from vimlight.errors import CheckpointError, ConfigError, ZooError, shown, unknown_name
from vimlight.files.checkpoint_facts import made_of, stated, stated_texts
from vimlight.prefix_cache import FrozenPart
from vimlight.tasks import SOLVERS, EnsembleHead, Examples
from vimlight.training.base import check_types, choose_readout, collect_examples, collect_features, examples_of
from vimlight.training.midstream import build_plugin
from vimlight.training.ranked import RankedModule
from vimlight.zoo import Zoo

__all__ = ["DownstreamModule"]

_STARTS = ("ranking", "equal")
_RANKINGS = ("halving", "exact")
_BUILT = ("aggregator", "head")
_BESIDE = {"names", "readout", "extra_module"}
_IMAGES_TO_START = 64
# From the middle outwards, so that leaving one out decides where validation images do not.
_FACTORS = tuple(10 ** (sign * k / 2) for k in range(5) for sign in (1, -1))[1:]


class DownstreamModule(RankedModule):
    """Aggregates a frozen zoo for one task.

    Before the first step the single modules are ranked by the leave-one-out error of a closed-form head on the training
    images, and the gates start from the ranking, as sharp and then as strong as leaves the least error. With a
    closed-form head the gates are trained on that same error and the head is solved anew for every validation and
    checkpoint and at the end; with a `linear` head both are trained together, the head starting from the closed form.
    A task whose head has no closed form trains it together with the gates, which start from the ranking all the same
    where the task has examples for it.

    A zoo of more than 14 modules is ranked by successive halving in about 12 passes over the images, and where gates
    start from the ranking only its eight best modules are aggregated; see `SuccessiveHalving`. Until then it is not
    loaded, unless somebody asks for the aggregator or the head.

    Args:
        backbone: The backbone, its name, or the arguments of `create_backbone`.
        zoo: Directory of the zoo.
        modules: Which modules; all of them if left out. A checkpoint remembers its modules, so that one added to the
            zoo later changes nothing.
        aggregator: Name of an aggregator, or its name as `how` together with its settings.
        head: `"ridge"` or `"lda"` for a head in closed form, `"linear"` for the same trained by gradient. By default
            `"ridge"` where the task's head has a closed form; otherwise the task decides on its head.
        readout: What the head reads: `"last"`, `"layers"`, `"grid"` or `"maps"`; see `Backbone.forward`. By default
            `"maps"` for tasks of maps, `"grid"` for others.
        start: `"ranking"` to start the gates from a ranking of the single modules, `"equal"` for equal gates.
        extra_module: A fresh plug-in trained beside the zoo: the name of its type or the arguments of `create_plugin`.
        ranking: `"halving"`, or `"exact"` to rank every module on all these images and aggregate all, however many.
        ranking_limit: How many training images the ranking looks at, at most.
        **training: Task, optimiser and schedule; see `SupervisedModule`.

    Attributes:
        ranking: What each module and, after training, the zoo as a whole is worth for the task by leave-one-out error;
            nothing without a zoo, for a task without examples to leave out, or with `start="equal"`.
    """

    def __init__(
        self,
        backbone: str | dict[str, Any] | Backbone,
        *,
        zoo: str = "zoo",
        modules: Sequence[str] | None = None,
        aggregator: str | dict[str, Any] = "ens_moe",
        head: str | None = None,
        readout: str | None = None,
        start: str = "ranking",
        extra_module: str | dict[str, Any] | None = None,
        ranking: str = "halving",
        ranking_limit: int = 1000,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        if head is not None and head != "linear" and head not in SOLVERS:
            raise unknown_name("head", head, ["linear", *SOLVERS])
        if head is not None and not self.task.closed_form:
            raise ConfigError(f"the head of this {self.task.kind} task has no closed form: leave 'head: {head}' out")
        if start not in _STARTS:
            raise unknown_name("start", start, _STARTS)
        if ranking not in _RANKINGS:
            raise unknown_name("ranking", ranking, _RANKINGS)
        self.zoo = Zoo(zoo)
        self.modules_asked = modules
        self.settings = {"how": aggregator} if isinstance(aggregator, str) else dict(aggregator)
        if "how" not in self.settings:
            raise ConfigError(f"the aggregator's settings {shown(self.settings)} lack 'how', its name")
        for name in _BESIDE & self.settings.keys():
            raise ConfigError(f"{name!r} is no setting of the aggregator; it stands beside it")
        how = self.settings["how"]
        check_types(f"aggregator {how!r}", AGGREGATORS[how].__init__, self.settings)
        self.head_kind = head or ("ridge" if self.task.closed_form else "own")
        self.readout = choose_readout(self.task, readout, "grid")
        self.start = start
        self.extra_module = extra_module
        self.ranking_limit = ranking_limit
        self.ranked_by = ranking
        self.ranking: Ranking | None = None
        self._head_of: tuple[int, bool] | None = None
        self.module_names = self._default_names()
        if not self._may_halve():
            self.build(self.module_names)

    def build(self, names: Sequence[str]) -> None:
        """Loads modules and creates the aggregator and the head.

        Args:
            names: Names of modules in the zoo.
        """
        self.module_names = list(names)
        zoo = [self.zoo.load(name, self.backbone) for name in names]
        extra = None if self.extra_module is None else build_plugin(self.extra_module, self.backbone)
        self.aggregator = aggregate(
            self.backbone, zoo, names=self.module_names, readout=self.readout, extra_module=extra, **self.settings
        )
        shapes = self.aggregator.feature_shapes()
        if self.settings["how"] == "logit_ensemble":
            self.head: nn.Module = EnsembleHead([self.task.create_head(shapes) for _ in zoo])
        else:
            self.head = self.task.create_head(shapes)
        if self.closed_form:
            self.head.requires_grad_(False)
        self.to(self.device)

    def __getattr__(self, name: str) -> Any:
        """Loads a large zoo once somebody asks for what is made of it."""
        if name in _BUILT and name not in self._modules:
            self.build(self.module_names)
        return super().__getattr__(name)

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns what the aggregator declares, and the head."""
        learned = {f"aggregator.{name}": module for name, module in self.aggregator.trainable_modules().items()}
        return {**learned, "head": self.head}

    def frozen_part(self) -> FrozenPart:
        """Returns the backbone up to the first module, and the aggregator's passes that nothing learned changes."""
        aggregator = self.aggregator
        return FrozenPart(self.backbone, self.readout, aggregator.attached(), aggregator.stream_names())

    @property
    def gates(self) -> Tensor:
        """The share of each module at each place, `(places, K)`."""
        return self.aggregator.gates.detach()

    def forward(self, images: Tensor) -> Any:
        """Returns the head's outputs for images `(N, 3, H, W)`, such as logits `(N, C)`."""
        shares = (self.aggregator.gates[0],) if isinstance(self.head, EnsembleHead) else ()
        return self.head(self.aggregator(images), *shares)

    def penalty(self) -> Tensor:
        """Returns what keeps the gates near their start."""
        return self.aggregator.penalty()

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor | None:
        """Computes the loss of a batch: through the head, or the leave-one-out error of a closed-form head."""
        if not any(parameter.requires_grad for parameter in self.parameters()):
            return None
        if not self.closed_form:
            return super().training_step(batch, batch_index)
        images = batch["image"]
        if len(images) < 2 and batch_index > 0:
            # What is left over of an epoch may be one image, and there is no leaving out of one.
            return None
        with self.backbone.recomputing(self.memory):
            features = self.aggregator(images)
        examples = examples_of(self.task, features, batch["target"], len(images))
        loss = self._solver_loss(examples, self.aggregator.gates, self._solver)
        self.log("train/left_out_error", loss, prog_bar=True, batch_size=len(images))
        return loss.float() + self.penalty()

    def on_fit_start(self) -> None:
        """Ranks the modules, starts the gates, and fits or starts the head, unless a checkpoint brings them."""
        super().on_fit_start()
        self._head_of = None
        self._check_final()
        if self.trained:
            return
        self.aggregator.eval()
        if self.start == "ranking" and self.module_names and self.task.ranks:
            # In the precision in which the gates will be trained.
            with self.trainer.precision_plugin.forward_context():
                self.start_from_ranking()
        self.fit_head()
        self.aggregator.train()

    def on_validation_start(self) -> None:
        """Solves a closed-form head anew for the gates as they are."""
        super().on_validation_start()
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._refresh_head()

    def on_train_epoch_end(self) -> None:
        """Logs the metrics, and solves a closed-form head for the gates that a checkpoint may now be written of."""
        super().on_train_epoch_end()
        if self.trainer.checkpoint_callbacks:
            self._refresh_head(final=True)

    def on_train_end(self) -> None:
        """Solves a closed-form head for the final gates, and says what the zoo is worth."""
        examples = self._refresh_head(final=True)
        if self.ranking is not None:
            self.aggregator.eval()
            with self.trainer.precision_plugin.forward_context():
                if examples is None or self._count() > self.ranking_limit:
                    examples = self._ranking_examples(self.aggregator)
                whole = float(self._solver_loss(examples, self.gates, self._solver))
            self.ranking = dataclasses.replace(self.ranking, aggregated=whole)
            rank_zero_info(self.ranking.order())
            rank_zero_info(self.ranking.worth(self.gates))
            for logger in self.trainer.loggers:
                logger.log_metrics(self.ranking.scores(), step=self.trainer.global_step)

    def fit_head(self, final: bool = False) -> Examples | None:
        """Fits the head on the training images in closed form; a linear head starts from the ridge solution.

        A head without closed form is started as `Task.create_head` says.

        Args:
            final: Whether a closed-form head is fitted on the images of the final fit.

        Returns:
            What the training images gave a head that has a closed form.
        """
        examples = None
        was_training = self.aggregator.training
        self.aggregator.eval()
        head: Any = self.head
        # In the precision in which the head will be used.
        with self.trainer.precision_plugin.forward_context():
            if self.task.closed_form:
                solver = self.head_kind if self.closed_form else "ridge"
                examples = self._examples("train")
                head.solve(examples, self.task, solver)
                if final:
                    factor = self._best_on_validation(examples, solver)
                    head.solve(self._examples("final"), self.task, solver, factor)
            elif hasattr(head, "start"):
                count = self._count(_IMAGES_TO_START)
                head.start(*collect_features(self.aggregator, self._images(count), count))
        self.aggregator.train(was_training)
        self._head_of = (self.trainer.global_step, final)
        return examples

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the modules' names and the hashes of their tensors."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vimlight"]["modules"] = {name: self.zoo.card(name).sha256 for name in self.module_names}
        if self.ranking is not None:
            checkpoint["vimlight"]["ranking"] = self.ranking.as_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the checkpoint's modules.

        Raises:
            CheckpointError: If one of them has changed since, others were asked for, or an entry makes no sense.
        """
        super().on_load_checkpoint(checkpoint)
        modules = stated_texts(checkpoint, "modules") or {}
        if self.modules_asked is not None and not self._are_of(modules, self.modules_asked):
            raise CheckpointError(
                f"the checkpoint aggregates {shown(list(modules))}, but modules={list(self.modules_asked)} was asked"
            )
        for name, sha256 in modules.items():
            if self.zoo.card(name).sha256 != sha256:
                raise CheckpointError(
                    f"module {name!r} of the zoo {str(self.zoo.path)!r} is not the one that was aggregated"
                )
        if list(modules) != self.module_names or "aggregator" not in self._modules:
            self.build(list(modules))
        ranking = stated(checkpoint, "ranking", dict, None)
        if ranking is not None:
            self.ranking = made_of(Ranking.from_dict, "ranking", ranking)

    def _are_of(self, modules: Iterable[str], asked: Sequence[str]) -> bool:
        """Tells whether modules are those that were asked for, or the best of them as far as they are ranked."""
        return list(modules) == list(asked) or (self._may_halve_of(asked) and set(modules) <= set(asked))

    def _refresh_head(self, final: bool = False) -> Examples | None:
        final = final and self._has_final()
        if self.closed_form and self._head_of != (self.trainer.global_step, final):
            return self.fit_head(final)
        return None

    def _examples(self, split: str) -> Examples:
        data = self._data()
        images = data.batches(split, self.device)
        return collect_examples(self.aggregator, images, self.task, len(data.tables[split]))

    @torch.no_grad()
    def _best_on_validation(self, examples: Examples, solver: str) -> float:
        """Returns by how much more or less regularisation than leaving one out takes the validation loss is least."""
        head: Any = self.head
        features, targets = collect_features(self.aggregator, self._data().batches("val", self.device))
        shares = (self.aggregator.gates[0],) if isinstance(self.head, EnsembleHead) else ()
        losses = []
        for factor in _FACTORS:
            head.solve(examples, self.task, solver, factor)
            losses.append(float(self.task.loss(head(features, *shares), targets)))
        return _FACTORS[losses.index(min(losses))]

    def _has_final(self) -> bool:
        return "final" in getattr(self._data(), "tables", {})

    def _check_final(self) -> None:
        if not self.closed_form and self._has_final():
            rank_zero_warn(
                f"the head {self.head_kind!r} learns from the {self._count()} training images alone: the final fit to "
                f"all {len(self._data().tables['final'])} is for heads in closed form; set head: ridge"
            )

    def _default_names(self) -> list[str]:
        if self.modules_asked is not None:
            return list(self.modules_asked)
        if not AGGREGATORS[self.settings["how"]].needs_modules:
            return []
        names = self.zoo.names()
        if not names:
            raise ZooError(
                f"the zoo {str(self.zoo.path)!r} is empty; train a module first (vimlight fit with MidstreamModule)"
            )
        return names
