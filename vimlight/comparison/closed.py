"""Methods of which nothing is learnt by gradient: a head in closed form on features that may be remembered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vimlight.aggregation import Aggregate, aggregate
from vimlight.comparison.bench import Bench, Fitted
from vimlight.comparison.catalogue import HINDSIGHT, Method
from vimlight.comparison.memory import Rows
from vimlight.prefix_cache import FrozenPart
from vimlight.tasks import Examples

__all__ = ["fit_closed"]


class _Choice(NamedTuple):
    """Features that a head can be fitted to: those of some modules as one, or side by side."""

    how: str
    modules: tuple[str, ...] = ()


def fit_closed(bench: Bench, method: Method) -> Fitted:
    """Fits and tests a method; where it has a choice, by the leave-one-out error, or in hindsight by the test.

    Args:
        bench: Where.
        method: Which.
    """
    bench.backbone.to(bench.device)
    probe, names = _Probe(bench, method), bench.names(method)
    singles = [_Choice("uniform", (name,)) for name in names]
    if method.how == "best_single":
        return probe.test(probe.least_error(singles))
    everything = [_Choice("none"), *singles, *([_Choice("uniform", tuple(names))] if len(names) > 1 else [])]
    if method.how == "select":
        return probe.test(probe.least_error(everything))
    if method.how == HINDSIGHT:
        return probe.best_of(everything)
    return probe.test(_Choice(method.how, tuple(names)))


class _Probe:
    """Fits heads to features, and tests them."""

    def __init__(self, bench: Bench, method: Method) -> None:
        self.bench, self.method = bench, method
        readout = bench.readout(method)
        # The last feature comes first in what is read from all layers, which other methods read.
        self.readout = bench.readout(Method("", "none")) if readout == "last" else readout
        self.width = bench.backbone.num_features(readout)
        self.whole = readout == self.readout

    def best_of(self, choices: Sequence[_Choice]) -> Fitted:
        """Returns the choice that does best on the test images."""
        task = self.bench.task
        best = max if task.mode == "max" else min
        return self.test(best(choices, key=lambda choice: self._scores(choice)[task.monitor]))

    def least_error(self, choices: Sequence[_Choice]) -> _Choice:
        """Returns the choice with the least leave-one-out error of a head on the training images."""
        return min(choices, key=lambda choice: self._fitted(choice)[1])

    def test(self, choice: _Choice) -> Fitted:
        """Fits a head and tests it."""
        return Fitted(self._scores(choice), self._model(choice), self._fitted(choice)[0], list(choice.modules))

    def _scores(self, choice: _Choice) -> dict[str, float]:
        tested = ("test", tuple(sorted(self.bench.data.tables["test"].ids)))
        return self.bench.memory.once((*self._sample(choice), tested), lambda: self._predict(choice))

    @torch.no_grad()
    def _predict(self, choice: _Choice) -> dict[str, float]:
        task, head = self.bench.task, self._fitted(choice)[0]
        scores = task.scores().to(self.bench.device)
        for rows, features in self._rows(choice, "test"):
            scores.update(task.predictions(head(features)), self._targets("test", rows))
        return {name: float(value) for name, value in scores.compute().items() if value.numel() == 1}

    def _fitted(self, choice: _Choice) -> tuple[nn.Module, float]:
        """Returns a head and its leave-one-out error."""
        return self.bench.memory.once(self._sample(choice), lambda: self._solve(choice))

    def _sample(self, choice: _Choice) -> tuple[Any, ...]:
        """Returns all that a head depends on: several methods ask for the same, and seeds where all labels are used."""
        labelled = tuple(sorted(self.bench.data.tables["train"].ids))
        return (self._about(choice), self.whole, self.bench.solver, labelled)

    def _solve(self, choice: _Choice) -> tuple[nn.Module, float]:
        task, examples = self.bench.task, self._examples(choice)
        head: Any = task.create_head([(examples.vectors.shape[1],)]).to(self.bench.device)
        return head, float(head.solve(examples, task, self.bench.solver).loss)

    def _examples(self, choice: _Choice) -> Examples:
        rows, features = zip(*self._rows(choice, "train"), strict=True)
        targets = self._targets("train", [row for part in rows for row in part])
        vectors = torch.cat(features)
        return self.bench.task.examples(vectors, targets, len(vectors))

    def _targets(self, split: str, rows: list[int]) -> Any:
        layout = self.bench.data.layout
        collated = layout.collate(self.bench.data.tables[split].targets_of(rows))
        return collated.to(self.bench.device) if isinstance(collated, Tensor) else collated

    def _rows(self, choice: _Choice, split: str) -> Rows:
        if choice.how == "k_streams":
            return self._side_by_side([_Choice("uniform", (name,)) for name in choice.modules], split)
        return self._remembered(choice, split)

    def _side_by_side(self, choices: Sequence[_Choice], split: str) -> Rows:
        for parts in zip(*(self._remembered(choice, split) for choice in choices), strict=True):
            yield parts[0][0], torch.cat([features for _, features in parts], dim=1)

    def _remembered(self, choice: _Choice, split: str) -> Iterator[tuple[list[int], Tensor]]:
        bench = self.bench
        make: Callable[[], nn.Module] = lambda: self._model(choice, self.readout)  # noqa: E731
        begin = partial(self._frozen, choice)
        for rows, features in bench.memory.rows(self._about(choice), make, bench.data, split, bench.device, begin):
            yield rows, features if self.whole else features[:, : self.width]

    def _frozen(self, choice: _Choice) -> tuple[Hashable, FrozenPart] | None:
        """Returns what a choice's modules leave as it is, where a plan keeps that and there is something to keep."""
        bench = self.bench
        if bench.study.prefix_cache is None or not choice.modules:
            return None
        zoo = bench.zoo(self.method)
        part = FrozenPart(bench.backbone, self.readout, [zoo.load(name, bench.backbone) for name in choice.modules])
        return (self._images(), part) if part.refusal(bench.data.preprocessing.size) is None else None

    def _images(self) -> tuple[Any, ...]:
        """Returns all that the images of the task depend on but for which of them are meant."""
        bench, task = self.bench, self.bench.group.task
        source = (task.dataset, str(task.dataset_args), bench.study.data["downstream", task.name], task.background)
        return (*source, str(bench.data.preprocessing))

    def _about(self, choice: _Choice) -> tuple[Any, ...]:
        """Returns all that features of a choice depend on but for which images they are of."""
        modules = tuple((self.method.zoo, self.bench.hashes[self.method.zoo][name]) for name in choice.modules)
        return (*self._images(), str(self.bench.group.task.task), choice.how, self.readout, modules)

    def _model(self, choice: _Choice, readout: str | None = None) -> Aggregate:
        backbone, zoo = self.bench.backbone, self.bench.zoo(self.method)
        modules = [zoo.load(name, backbone) for name in choice.modules]
        readout = readout or self.bench.readout(self.method)
        return aggregate(backbone, modules, choice.how, names=choice.modules, readout=readout).eval()
