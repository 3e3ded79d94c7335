"""What of downstream training ranks the modules of a zoo, and starts gates from the ranking."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from vimlight.aggregation import AGGREGATORS, Aggregate
from vimlight.aggregation.bare import Bare
from vimlight.aggregation.best_single import BestSingle
from vimlight.aggregation.ranking import BARE, Ranking
from vimlight.backbone import Features, KeptImages
from vimlight.data import ImageDataModule
from vimlight.errors import ConfigError
from vimlight.files.checkpoint_facts import stated_texts
from vimlight.tasks import SOLVERS, Examples
from vimlight.tasks.closed_form import Solver, ridge
from vimlight.tasks.evidence import evidence_of
from vimlight.trainable import read_checkpoint
from vimlight.training.base import SupervisedModule, collect_examples
from vimlight.training.halving import KEPT, SuccessiveHalving, is_large
from vimlight.zoo import Zoo

__all__ = ["RankedModule"]

T = TypeVar("T")


class RankedModule(SupervisedModule):
    """A model that aggregates a zoo, of which it ranks the modules first.

    Attributes:
        zoo: The zoo.
        module_names: Names of its modules that are aggregated.
        settings: Settings of the aggregator, `how`, its name, among them.
        readout: What the head reads.
        head_kind: Name of the head's solver, or of another kind of head.
        start: Whether gates start from the ranking, `"ranking"`, or `"equal"`.
        ranked_by: `"halving"` to judge most modules of a large zoo on few images, `"exact"` to judge each on all.
        ranking_limit: How many training images are looked at, at most.
        ranking: What each module is worth.
        known_ranking: That of another model with these modules, readout and solver, ranked on the same images: where it
            is given, nothing is ranked again.
        ranks_evidence: Whether a ranking also says the evidence of each module; see `evidence_of`.
    """

    ranks_evidence = False
    known_ranking: Ranking | None = None

    zoo: Zoo
    module_names: list[str]
    settings: dict[str, Any]
    readout: str
    head_kind: str
    start: str
    ranked_by: str
    ranking_limit: int
    ranking: Ranking | None
    aggregator: Aggregate
    # Rows of the training images on which the gates of a large zoo start.
    _to_start: Sequence[int] | None = None

    @abstractmethod
    def build(self, names: Sequence[str]) -> None:
        """Loads modules and creates the aggregator and the head.

        Args:
            names: Names of modules in the zoo.
        """

    @property
    def closed_form(self) -> bool:
        """Whether the head is solved rather than trained."""
        return self.head_kind in SOLVERS

    def prepare_fit(self) -> None:
        """Ranks a large zoo, and loads the modules that are left of it, or those of the checkpoint that is taken up.

        Of a path that `Trainer.fit` is given nothing is known yet, but of one that `trainer.ckpt_path` was set to.
        """
        if "aggregator" in self._modules or not self._starts_gates():
            return
        known = self._modules_taken_up()
        if known is not None:
            self.build(known)
            return
        self.to(self.trainer.strategy.root_device)
        with self.trainer.precision_plugin.forward_context():
            halving = self._halving()
            if halving is None:
                return
            ranking = halving.rank(self.settings["how"])
        # Every process must build the same.
        self.ranking = self.trainer.strategy.broadcast(ranking)
        self._to_start = halving.to_start
        self.build(self.ranking.names()[:KEPT])

    def rank_modules(self) -> dict[str, float]:
        """Returns the leave-one-out error of a closed-form head on each module alone, by name; less is better."""
        return {name: self._left_out_error(probe) for name, probe in self._alone()}

    def _alone(self) -> Iterator[tuple[str, BestSingle]]:
        """Yields each module by itself, with its name."""
        for name, module in zip(self.module_names, self.aggregator.modules_in_zoo, strict=True):
            yield name, BestSingle(self.backbone, [module], names=[name], readout=self.readout).to(self.device)

    def start_from_ranking(self) -> None:
        """Ranks the modules, unless that is done, and starts the gates, where there are any to start."""
        if self.known_ranking is not None:
            self.ranking = dataclasses.replace(self.known_ranking, how=self.settings["how"], aggregated=None)
        elif self.ranking is None or self._to_start is None:
            self.ranking = self._rank()
        if self._starts_gates():
            self._start_gates(self.ranking)

    def _modules_taken_up(self) -> list[str] | None:
        """Returns the modules of the checkpoint from which the run goes on, as far as the trainer knows of one."""
        connector = self.trainer._checkpoint_connector
        path = self.trainer.ckpt_path or connector._hpc_resume_path
        return None if path is None else list(stated_texts(read_checkpoint(path), "modules") or {}) or None

    def _may_halve(self) -> bool:
        """Tells whether the zoo is one to be ranked by successive halving, whatever the data."""
        return self._may_halve_of(self.module_names)

    def _may_halve_of(self, names: Sequence[str]) -> bool:
        ranked = self.ranked_by == "halving" and self.start == "ranking" and self.task.ranks
        return ranked and is_large(len(names))

    def _halving(self) -> SuccessiveHalving | None:
        """Returns what ranks a large zoo; nothing where all modules are to see all images."""
        data = self._data()
        if not self._may_halve() or not isinstance(data, ImageDataModule):
            return None
        found = SuccessiveHalving(
            self.backbone, self.zoo, self.module_names, data=data, task=self.task, readout=self.readout,
            solve=self._solver, limit=self.ranking_limit, evidence=self.ranks_evidence,
        )  # fmt: skip
        return found if found.rungs else None

    def _rank(self) -> Ranking:
        how: str = self.settings["how"]
        halving = self._halving()
        if halving is not None:
            return halving.rank(how)
        bare = _KeptBare(self.backbone, (), readout=self.readout)
        error, modules = self._left_out_error(bare), self.rank_modules()
        evidence = {}
        if self.ranks_evidence:
            alone = {BARE: bare, **dict(self._alone())}
            evidence = {name: evidence_of(self._ranking_examples(model)) for name, model in alone.items()}
        return Ranking(self._count(self.ranking_limit), error, modules, how, evidence=evidence)

    def _starts_gates(self) -> bool:
        """Tells whether the aggregator has anything to start; others keep the base class's method."""
        return AGGREGATORS[self.settings["how"]].start_from is not Aggregate.start_from

    def _start_gates(self, ranking: Ranking) -> None:
        errors = torch.tensor([ranking.comparable(name) for name in self.module_names], dtype=torch.float64)
        spread = errors.std() if len(errors) > 1 else errors.new_ones(())
        merit = (errors.mean() - errors) / spread.clamp_min(1e-12)
        starts = self.aggregator.starts(merit.float().to(self.device))
        self.aggregator.scale_to(1.0)
        least = self._start_best(self.aggregator.start_from, starts)
        self._start_best(self.aggregator.scale_to, self.aggregator.strengths, {} if least is None else {1.0: least})

    def _start_best(
        self, start: Callable[[T], None], candidates: Sequence[T], known: Mapping[T, float] | None = None
    ) -> float | None:
        """Starts the gates from the candidate with the least leave-one-out error, and returns that of a choice.

        Args:
            start: Starts the gates from a candidate.
            candidates: The candidates.
            known: Errors of candidates that were tried before.
        """
        if len(candidates) < 2:
            return None
        found = known or {}
        errors = [found[each] if each in found else self._error_from(start, each) for each in candidates]
        least = min(errors)
        start(candidates[errors.index(least)])
        return least

    def _error_from(self, start: Callable[[T], None], candidate: T) -> float:
        start(candidate)
        return self._left_out_error(self.aggregator, self._to_start)

    def _left_out_error(self, model: Aggregate, only: Sequence[int] | None = None) -> float:
        """Returns the leave-one-out error of a model on the images of the ranking.

        Args:
            model: The model.
            only: Rows of some of these images; of few, classes may lack some, and ridge regression takes that.
        """
        examples = self._ranking_examples(model, only)
        return float(self._solver_loss(examples, model.gates.detach(), self._solver if only is None else ridge))

    def _ranking_examples(self, model: Aggregate, only: Sequence[int] | None = None) -> Examples:
        count = self._count(self.ranking_limit) if only is None else len(only)
        images = self._images(count) if only is None else self._data().batches("train", self.device, only=only)
        return collect_examples(model, images, self.task, count)

    def _solver_loss(self, examples: Examples, gates: Tensor, solve: Solver) -> Tensor:
        """Returns the leave-one-out error of a head in closed form; of streams, that of their mixture."""
        vectors, columns, images = examples
        if vectors.dim() == 2:
            return solve(vectors, columns, images=images).loss
        left_out = torch.stack([solve(x, columns, images=images).left_out for x in vectors.unbind(1)], dim=-1)
        return (left_out @ gates[0].to(left_out.dtype) - columns).square().mean()

    @property
    def _solver(self) -> Solver:
        return SOLVERS[self.head_kind if self.closed_form else "ridge"]

    def _count(self, limit: int | None = None) -> int:
        """Returns the number of training images that are looked at."""
        count = len(self._data().tables["train"])
        return count if limit is None else min(count, limit)

    def _images(self, limit: int | None = None) -> Iterable[Mapping[str, Any]]:
        """Returns the training images as they are, in order, on the model's device: all, or about as many as asked."""
        return self._data().batches("train", self.device, limit)  # type: ignore[no-any-return]

    def _data(self) -> Any:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "batches"):
            raise ConfigError(
                "a downstream model needs a DownstreamDataModule (or one with batches('train', device, limit))"
            )
        return data


class _KeptBare(Bare):
    """The bare backbone beside an aggregator that may keep its own whole passes and nothing else of the images."""

    def forward(self, images: Tensor) -> Features:
        """Computes features of images `(N, 3, H, W)`, or recalls them."""
        if isinstance(images, KeptImages):
            return images.recall(f"{self.readout} {BARE}", super().forward)
        return super().forward(images)
