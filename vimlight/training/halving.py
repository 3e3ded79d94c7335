"""Successive halving: a large zoo is ranked in a few passes over the images, most of its modules on few of them.

All modules are judged on a small part of the training images; the better ones go on to a larger part that contains it,
and so on to the last rung, which sees all images [Jamieson and Talwalkar 2016, "Non-stochastic best arm identification
and hyperparameter optimization"]. What a module made of the images of one rung is kept for the next.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from vimlight.aggregation.ranking import BARE, Ranking
from vimlight.backbone import Backbone
from vimlight.data import ImageDataModule
from vimlight.plugins import attach
from vimlight.plugins.attachment import depth_of
from vimlight.prefix_cache import FrozenPart
from vimlight.tasks import Examples, Task
from vimlight.tasks.closed_form import Solver, ridge
from vimlight.tasks.evidence import evidence_of
from vimlight.training.base import examples_of
from vimlight.zoo import Card, Zoo

__all__ = ["KEPT", "Rung", "SuccessiveHalving", "in_turn", "is_large", "schedule"]

# How many modules are left for the gates, and how many of them are judged on all images.
KEPT, _FINALISTS = 8, 3
# Passes over the images in all, with up to 100 modules and with each tenfold number more. Among them are those of the
# bare backbone and of the start of the gates: here, and where all is done on all images.
_PASSES, _PASSES_MORE, _BESIDE, _EXACT_BESIDE = 12.0, 8.0, 2.25, 10
# Up to so many modules, ranking each on all images takes hardly longer.
_FEW = 14
# With more, who could be judged on the fewest images within the passes is chosen by the cards.
_MANY, _STEP = 1000, 10
# Which share of the modules goes on, on how many images one can be judged at least, and on how many the gates start.
_GOING_ON, _FEWEST, _FEWEST_TO_START, _SHARE_TO_START = 4, 6, 64, 8
# On which share of the images those that are kept are judged at least.
_SHARE_OF_KEPT = 1 / 3
# Of few images, errors of a head that hardly fits them vary least: they tell which features are good, not whom the few
# images happen to suit.
_SHRUNK = (100.0,)
# Of each class in turn; of a single image there is no leaving out.
_A_TURN = 2
# Images that are held in memory while one module after the other looks at them.
_AT_ONCE = 128


@dataclasses.dataclass(frozen=True)
class Rung:
    """A round of successive halving.

    Attributes:
        modules: How many modules are judged.
        images: On how many images, those of the rungs before among them.
    """

    modules: int
    images: int


def is_large(modules: int) -> bool:
    """Tells whether there are so many modules that ranking each on all images would take long."""
    return modules > _FEW


def schedule(modules: int, images: int, limit: int = 0) -> list[Rung]:
    """Returns the rungs: a fourth of the modules goes on each time, until eight see a third of the images, three all.

    The numbers of images are a geometric series that fits into 12 bare passes over the images with up to 100 modules,
    and into 20 with 1,000, what else they are looked at for included. Of more than 1,000 modules as many are judged as
    the passes suffice for.

    Args:
        modules: Number of modules.
        images: Number of images.
        limit: As many images may be looked at as if there were so many.

    Returns:
        The rungs; none where there is so little to do that all modules see all images.
    """
    passes = _PASSES + _PASSES_MORE * max(0.0, math.log10(modules / 100))
    most = passes * max(images, limit)
    if not is_large(modules) or images < 4 * _FEWEST or (modules + _EXACT_BESIDE) * images <= most:
        return []
    left = most - _BESIDE * images
    found = (_rungs(modules, images, first) for first in range(images // 4, _FEWEST, -1))
    fewer = (_rungs(count, images, _FEWEST) for count in range(modules, _MANY, -_STEP))
    fitting = (rungs for rungs in chain(found, fewer) if _cost(rungs) <= left)
    return next(fitting, _rungs(min(modules, _MANY), images, _FEWEST))


def _rungs(modules: int, images: int, first: int) -> list[Rung]:
    counts = [modules]
    while counts[-1] > KEPT:
        quarter = math.ceil(counts[-1] / _GOING_ON)
        counts.append(quarter if quarter >= 2 * KEPT else KEPT)
    growth = (max(_SHARE_OF_KEPT * images, 2 * first) / first) ** (1 / (len(counts) - 1))
    sizes = [round(first * growth**step) for step in range(len(counts))]
    return [*map(Rung, counts, sizes), Rung(_FINALISTS, images)]


def _cost(rungs: Sequence[Rung]) -> int:
    """Returns how many images all modules together look at."""
    before = [0, *(rung.images for rung in rungs)]
    return sum(rung.modules * (rung.images - seen) for rung, seen in zip(rungs, before, strict=False))


def in_turn(labels: Tensor) -> list[int]:
    """Returns rows in an order of which each beginning has a fair share of every class.

    Args:
        labels: `(N,)` classes, or `(N, C)` zeros and ones, of which an image counts as the rarest that it shows.
    """
    if labels.dim() == 2:
        flags = (labels > 0).double()
        labels = (flags / flags.sum(dim=0).clamp_min(1)).argmax(dim=1)
    classes: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels.tolist()):
        classes[label].append(row)
    placed = [
        ((number // _A_TURN + 0.5) * _A_TURN / len(rows), rows[0], row)
        for rows in classes.values()
        for number, row in enumerate(rows)
    ]
    return [row for *_, row in sorted(placed)]


class SuccessiveHalving:
    """Ranks the modules of a zoo, which are loaded one at a time, by leave-one-out error.

    Modules that leave the first blocks alone share what these make of an image.

    Args:
        backbone: The backbone, on the device where it is to run.
        zoo: The zoo.
        names: The modules.
        data: Brings the training images and their targets.
        task: Says what of them a head in closed form is fitted to.
        readout: What is read out; see `Backbone.forward`.
        solve: Whose leave-one-out error counts on all images; on fewer, where classes may lack some, it is that of
            ridge regression, strongly regularised until as few modules as are kept are left.
        limit: How many training images are looked at, at most, but for the rest of a batch.
        evidence: Whether the ranking also says the evidence of each module.

    Attributes:
        rungs: See `schedule`; none where this is not worth while.
        to_start: Rows of the training images that are enough to start gates on.
    """

    def __init__(
        self,
        backbone: Backbone,
        zoo: Zoo,
        names: Sequence[str],
        *,
        data: ImageDataModule,
        task: Task,
        readout: str,
        solve: Solver,
        limit: int,
        evidence: bool = False,
    ) -> None:
        self._backbone, self._zoo, self._names, self._readout = backbone, zoo, list(names), readout
        self._data, self._task, self._solve, self._says_evidence = data, task, solve, evidence
        labels = data.strata(data.tables["train"])
        self._order = in_turn(labels[: data.visited("train", limit)])
        self.rungs = schedule(len(self._names), len(self._order), limit)
        self.to_start = self._order[: max(_FEWEST_TO_START, len(self._order) // _SHARE_TO_START)]
        self._examples: dict[str, list[Examples]] = {}
        self._shared: dict[tuple[int, torch.Size], bool] = {}

    @torch.no_grad()
    def rank(self, how: str) -> Ranking:
        """Ranks the modules.

        Args:
            how: Name of the aggregator, for the ranking.
        """
        errors: dict[str, float] = {}
        evidence: dict[str, float] = {}
        judged: dict[str, int] = {}
        bare: dict[int, float] = {}
        alive, seen = self._entrants(), 0
        self._examples = {name: [] for name in (BARE, *alive)}
        for rung in self.rungs:
            alive = sorted(alive, key=lambda name: errors.get(name, 0.0))[: rung.modules]
            self._examples = {name: self._examples[name] for name in (BARE, *alive)}
            self._look(self._order[seen : rung.images], seen)
            found = {name: self._error(name, self._solver(rung)) for name in (BARE, *alive)}
            bare[rung.images] = found.pop(BARE)
            errors.update(found)
            if self._says_evidence:
                evidence |= {name: evidence_of(self._collected(name)) for name in (BARE, *alive)}
            judged.update(dict.fromkeys(alive, rung.images))
            seen = rung.images
        self._examples = {}
        modules = {name: errors[name] for name in self._names if name in errors}
        fewer = {name: count for name, count in judged.items() if count < seen}
        return Ranking(seen, bare[seen], modules, how, judged_on=fewer, bare_on=bare, evidence=evidence)

    def _solver(self, rung: Rung) -> Solver:
        if rung.images == len(self._order):
            return self._solve
        return ridge if rung.modules <= KEPT else partial(ridge, strengths=_SHRUNK)

    def _entrants(self) -> list[str]:
        """Returns the modules that are judged: all, or of too many those whose cards are nearest to the task."""
        count = self.rungs[0].modules
        if count == len(self._names):
            return self._names
        cards = {name: self._zoo.card(name) for name in self._names}
        return sorted(self._names, key=lambda name: _distance(cards[name], self._task))[:count]

    def _error(self, name: str, solve: Solver) -> float:
        vectors, columns, images = self._collected(name)
        return float(solve(vectors, columns, images=images).loss)

    def _collected(self, name: str) -> Examples:
        return Examples(*(torch.cat(part) for part in zip(*self._examples[name], strict=True)))

    def _look(self, rows: Sequence[int], seen: int) -> None:
        """Lets all modules that are left look at images, of which those with the same first blocks share these."""
        device = next(self._backbone.parameters()).device
        for batches in _several(self._data.batches("train", device, only=rows)):
            size = batches[0]["image"].shape[-2:]
            for depth, names in self._by_depth(size).items():
                inputs = [self._begun(batch["image"], depth) for batch in batches]
                for name in names:
                    self._run(name, inputs, batches, seen)
            seen += sum(len(batch["image"]) for batch in batches)

    def _run(self, name: str, inputs: Sequence[Any], batches: Sequence[Any], seen: int) -> None:
        with self._attached(name):
            for x, batch in zip(inputs, batches, strict=True):
                features = self._backbone(x, self._readout)
                found = examples_of(self._task, features, batch["target"], len(self._order))
                self._examples[name].append(found._replace(images=found.images + seen))
                seen += len(batch["image"])

    def _attached(self, name: str) -> AbstractContextManager[Any]:
        return nullcontext() if name == BARE else attach(self._backbone, self._zoo.load(name, self._backbone))

    def _by_depth(self, size: torch.Size) -> dict[int, list[str]]:
        """Returns the names of what is left, by how many blocks are run before it; 0 where that cannot be shared."""
        sites = {site.name: depth_of(site, self._backbone) for site in self._backbone.all_sites}
        found = defaultdict(list)
        for name in self._examples:
            depth = 0 if name == BARE else min(sites.get(site, 0) for site in self._zoo.card(name).sites)
            found[depth if self._can_share(depth, size) else 0].append(name)
        return found

    def _can_share(self, depth: int, size: torch.Size) -> bool:
        if (depth, size) not in self._shared:
            part = FrozenPart(self._backbone, self._readout, tuned=depth)
            self._shared[depth, size] = part.refusal(size) is None
        return self._shared[depth, size]

    def _begun(self, images: Tensor, depth: int) -> Any:
        return self._backbone.prefix(images, depth, self._readout) if depth else images


def _distance(card: Card, task: Task) -> tuple[float, bool, int]:
    """Returns by what a module learnt something else than a task asks for: words of classes, kind, number of images."""
    wanted, learnt = _words(task.class_names), _words(card.classes)
    shared = len(wanted & learnt) / max(1, len(wanted | learnt))
    images = card.samples.get("train", 0)
    return -shared, card.task != task.kind, -images if isinstance(images, int) else 0


def _words(names: Iterable[str]) -> set[str]:
    return {word for name in names for word in re.findall(r"\w+", name.casefold())}


def _several(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yields batches some at a time, so that a module need not be loaded for each of them."""
    found: list[Any] = []
    for batch in batches:
        found.append(batch)
        if sum(len(one["image"]) for one in found) >= _AT_ONCE:
            yield found
            found = []
    if found:
        yield found
