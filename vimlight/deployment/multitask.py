"""Several downstream tasks over one zoo in one pass: each image of a batch has its own task, gates and head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vimlight.aggregation import Aggregate, StaticGates
from vimlight.aggregation.bare import Bare
from vimlight.aggregation.best_single import BestSingle
from vimlight.aggregation.gated import PerImageGates
from vimlight.backbone import READOUTS, Backbone, Features, Prefix
from vimlight.deployment import load_run
from vimlight.errors import ConfigError, FingerprintError, PluginError, unknown_name
from vimlight.plugins import Attachment, Plugin
from vimlight.prefix_cache import FrozenPart
from vimlight.training.downstream import DownstreamModule

__all__ = ["MultiTask", "Share", "load_models"]


def load_models(
    checkpoints: Mapping[str, str | Path], *, zoo: str | Path | None = None
) -> dict[str, DownstreamModule]:
    """Loads the downstream models of several runs of `vimlight fit`.

    Args:
        checkpoints: The runs' checkpoints by task; each run's config lies beside its own.
        zoo: Directory of the zoo, where it is no longer the configs'.

    Raises:
        CheckpointError: If a checkpoint is damaged, was not written by vimlight, or does not fit its config.
        ConfigError: If a run has no config, or is none of a downstream model.
    """
    models = {}
    for name, checkpoint in checkpoints.items():
        model = load_run(checkpoint, zoo=zoo)
        if not isinstance(model, DownstreamModule):
            kind = type(model).__name__
            raise ConfigError(f"task {name!r}: {str(checkpoint)!r} is of a {kind}, not of a downstream model")
        models[name] = model
    return models


class Share(NamedTuple):
    """What a batch holds of one task: which images, `(n,)` int64, and the head's outputs for them."""

    rows: Tensor
    outputs: Any


class MultiTask(nn.Module):
    """Serves several downstream tasks over one backbone and one zoo.

    The modules of all tasks are fused into one, each module once, and each image multiplies the hidden units by the
    gates of its own task. Gates and heads are those of the models given, not copies: what is learned here is learned
    there. Fresh modules that were trained beside the zoo take part as they are; they learn no more.

    Args:
        tasks: The aggregator and the head of each task, by the task's name. Aggregators must have gates that do not
            depend on the image, and need one pass: `ens_moe`, `uniform`, `best_single` and `none`.

    Attributes:
        names: Names of the tasks.
        heads: The heads by task.

    Raises:
        ConfigError: If there are no tasks, or their heads read different things.
        FingerprintError: If the tasks have different backbones.
        PluginError: If an aggregator is of another kind, or the tasks disagree on the order of plug-in types.
    """

    def __init__(self, tasks: Mapping[str, tuple[Aggregate, nn.Module]]) -> None:
        super().__init__()
        if not tasks:
            raise ConfigError("MultiTask needs at least one task")
        aggregates = {name: aggregate for name, (aggregate, _) in tasks.items()}
        self.check(aggregates)
        _check_readouts(aggregates)
        self.names = list(tasks)
        self.heads = nn.ModuleDict({_key(name): head for name, (_, head) in tasks.items()})
        backbone = next(iter(aggregates.values())).backbone
        self._readouts = [aggregate.readout for aggregate in aggregates.values()]
        self.readout = next((readout for readout in self._readouts if readout != "last"), "last")
        # The backbone is looked at with one image, which would not fit the gates of a batch later.
        backbone.feature_shapes(self.readout)
        self._width = backbone.num_features()
        self._zoo = _joined(backbone, {name: one.modules_in_zoo for name, one in aggregates.items()}, self.readout)
        extras = {name: (one.extra,) for name, one in aggregates.items() if one.extra is not None}
        self._extras = _joined(backbone, extras, self.readout)
        self._gates = nn.ModuleDict(
            {_key(name): _TaskGates(one, self._zoo, self._extras) for name, one in aggregates.items()}
        )

    @classmethod
    def of(cls, models: Mapping[str, DownstreamModule]) -> MultiTask:
        """Joins trained downstream models.

        Args:
            models: The models by task.
        """
        return cls({name: (model.aggregator, model.head) for name, model in models.items()})

    @classmethod
    def load(cls, checkpoints: Mapping[str, str | Path], *, zoo: str | Path | None = None) -> MultiTask:
        """Joins the downstream models of several runs of `vimlight fit`; they share the first one's backbone.

        Args:
            checkpoints: The runs' checkpoints by task; see `load_models`, also for what is raised.
            zoo: Directory of the zoo, where it is no longer the configs'.
        """
        return cls.of(load_models(checkpoints, zoo=zoo))

    @staticmethod
    def check(aggregates: Mapping[str, Aggregate]) -> None:
        """Checks that tasks can share a backbone and, where their heads read the same, a pass.

        Args:
            aggregates: Their aggregators.

        Raises:
            PluginError: If gates depend on the image, or an aggregator needs several passes.
            FingerprintError: If the tasks have different backbones.
        """
        first_name, first = next(iter(aggregates.items()))
        for name, aggregate in aggregates.items():
            if not isinstance(aggregate, (StaticGates, BestSingle, Bare)):
                raise PluginError(
                    f"task {name!r} is aggregated by {type(aggregate).__name__}, whose gates are not the same for "
                    "every image or need several passes; MultiTask takes ens_moe, uniform, select, best_single and none"
                )
            if aggregate.backbone.fingerprint != first.backbone.fingerprint:
                raise FingerprintError(
                    f"task {name!r} has the backbone with fingerprint {aggregate.backbone.fingerprint[:12]}..., task "
                    f"{first_name!r} that with {first.backbone.fingerprint[:12]}...; tasks share one pass and one "
                    "backbone"
                )

    @property
    def backbone(self) -> Backbone:
        """The backbone."""
        return self._zoo.backbone

    def forward(self, images: Tensor, tasks: Sequence[str]) -> list[Any]:
        """Returns each image's outputs by its own gates and head.

        Args:
            images: `(N, 3, H, W)`, or what stands for them.
            tasks: The name of each image's task, N of them.

        Returns:
            A list with one entry an image, such as logits `(C,)` of its task's classes.

        Raises:
            UnknownNameError: If there is no such task.
            ConfigError: If there are not as many names as images.
        """
        outputs: list[Any] = [None] * len(tasks)
        for share in self.by_task(images, tasks).values():
            for place, row in enumerate(share.rows.tolist()):
                outputs[row] = _pick(share.outputs, place)
        return outputs

    def by_task(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Share]:
        """Returns the outputs of each task that occurs in a batch, for losses and metrics.

        Args:
            images: As in `forward`.
            tasks: As in `forward`.

        Raises:
            UnknownNameError: If there is no such task.
            ConfigError: If there are not as many names as images.
        """
        if len(tasks) != len(images):
            raise ConfigError(f"{len(images)} images need as many task names, got {len(tasks)}")
        for name in tasks:
            if name not in self.names:
                raise unknown_name("task", name, self.names)
        present = [name for name in self.names if name in set(tasks)]
        owners = torch.tensor([present.index(name) for name in tasks], device=self._zoo.present.device)
        gates = [self._gates[_key(name)]() for name in present]
        features = self._features(images, gates, owners)
        shares = {}
        for number, name in enumerate(present):
            rows = (owners == number).nonzero().flatten()
            shares[name] = Share(rows, self.heads[_key(name)](self._read(name, features, rows)))
        return shares

    @torch.no_grad()
    def together(self, views: Tensor, choice: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Returns every task's outputs for one image; what tasks have in common is computed once.

        Tasks with equal gates share everything but their heads, all others the blocks before the first module.

        Args:
            views: `(V, 3, H, W)`: the image, in each of the ways in which tasks want it prepared.
            choice: Which of them each task reads; the first if left out.

        Returns:
            The outputs by task, as for a batch of one image.
        """
        rows: list[_Row] = []
        places = {}
        for name in self.names:
            row = _Row(0 if choice is None else choice[name], *self._gates[_key(name)]())
            places[name] = next((number for number, other in enumerate(rows) if other.equals(row)), len(rows))
            rows += [row] * (places[name] == len(rows))
        begun = self._begun(views, torch.tensor([row.view for row in rows], device=views.device))
        own = torch.arange(len(rows), device=views.device)
        features = self._features(begun, [(row.of_zoo, row.of_extras) for row in rows], own)
        return {
            name: self.heads[_key(name)](self._read(name, features, torch.tensor([place], device=views.device)))
            for name, place in places.items()
        }

    def train(self, mode: bool = True) -> MultiTask:
        """Keeps backbone, zoo and fresh modules in eval mode; heads follow `mode`."""
        super().train(mode)
        for joined in (self._zoo, self._extras):
            joined.eval()
        return self

    def _begun(self, views: Tensor, rows: Tensor) -> Tensor | Prefix:
        """Returns the rows of a batch, each a view, after the blocks before the first module where rows share views."""
        if len(rows) <= len(views) or not self._common_depth:
            return views[rows]
        prefix = self.backbone.prefix(views, self._common_depth, self.readout)
        read = {name: found[rows] for name, found in prefix.read.items()}
        return dataclasses.replace(prefix, tokens=prefix.tokens[rows], read=read)

    @cached_property
    def _common_depth(self) -> int:
        """How many blocks, from the first on, are the same for all tasks, as far as they can be run apart."""
        part = FrozenPart(self.backbone, self.readout, [*self._zoo.modules_in_zoo, *self._extras.modules_in_zoo])
        return part.depth if part.refusal(self.backbone.preprocessing.size) is None else 0

    def _features(self, images: Tensor | Prefix, gates: Sequence[tuple[Tensor, Tensor]], owners: Tensor) -> Features:
        self._zoo.given = torch.stack([of_zoo for of_zoo, _ in gates])[owners]
        self._extras.given = torch.stack([of_extras for _, of_extras in gates])[owners]
        try:
            with Attachment(self.backbone, [*self._zoo.slots(), *self._extras.slots()]):
                features: Features = self.backbone(images, self.readout)
        finally:
            self._zoo.given = self._extras.given = None
        return features

    def _read(self, name: str, features: Features, rows: Tensor) -> Features:
        if isinstance(features, list):
            return [level[rows] for level in features]
        own = features[rows]
        # What a head of the last feature reads stands first in what the others read.
        return own[:, : self._width] if self._readouts[self.names.index(name)] == "last" else own


class _Row(NamedTuple):
    """A row of a batch: which view of the image, and the gates of the zoo and of the fresh modules."""

    view: int
    of_zoo: Tensor
    of_extras: Tensor

    def equals(self, other: _Row) -> bool:
        """Tells whether another row would be computed alike."""
        return (
            self.view == other.view
            and torch.equal(self.of_zoo, other.of_zoo)
            and torch.equal(self.of_extras, other.of_extras)
        )


class _TaskGates(nn.Module):
    """The gates of one task, at the places and for the modules of all tasks.

    Args:
        aggregate: The task's aggregator.
        zoo: The modules of all tasks.
        extras: The fresh modules of all tasks.
    """

    def __init__(self, aggregate: Aggregate, zoo: PerImageGates, extras: PerImageGates) -> None:
        super().__init__()
        self._shape = (len(zoo.places), len(zoo.names))
        columns = [zoo.names.index(module.identity()) for module in aggregate.modules_in_zoo]
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.long), persistent=False)
        self.source: StaticGates | None = None
        if isinstance(aggregate, StaticGates):
            self.source = aggregate.without_zoo()
            rows = [zoo.places.index(place) for place in aggregate.places]
            self.register_buffer("rows", torch.tensor(rows, dtype=torch.long), persistent=False)
        elif isinstance(aggregate, BestSingle):
            self.register_buffer("fixed", aggregate.gates, persistent=False)
        own = torch.zeros(len(extras.places), len(extras.names))
        if aggregate.extra is not None:
            own[:, extras.names.index(aggregate.extra.identity())] = 1
        self.register_buffer("own", own, persistent=False)

    columns: Tensor
    rows: Tensor
    fixed: Tensor
    own: Tensor

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the gates of the zoo `(places, K)` and those of the fresh modules."""
        gates = torch.zeros(self._shape, device=self.own.device)
        if self.source is not None:
            found = self.source.gates
            gates = gates.to(found.dtype).index_put((self.rows[:, None], self.columns[None]), found)
        elif "fixed" in self._buffers:
            gates = gates.index_add(1, self.columns, self.fixed.expand(self._shape[0], -1))
        return gates, self.own


def _joined(backbone: Backbone, modules: Mapping[str, Sequence[Plugin]], readout: str) -> PerImageGates:
    """Joins the modules of all tasks, each once, under their identities for names."""
    distinct = {module.identity(): module for of_task in modules.values() for module in of_task}
    order = list(dict.fromkeys(module.kind for module in distinct.values()))
    for task, of_task in modules.items():
        kinds = list(dict.fromkeys(module.kind for module in of_task))
        if kinds != [kind for kind in order if kind in kinds]:
            raise PluginError(
                f"task {task!r} adds plug-ins in the order {kinds}, others in the order {order}; name the modules of "
                "all tasks in one order"
            )
    return _Joined(backbone, list(distinct.values()), names=list(distinct), readout=readout)


class _Joined(PerImageGates):
    """The modules of all tasks; there may be none."""

    needs_modules = False


def _check_readouts(aggregates: Mapping[str, Aggregate]) -> None:
    readouts = {name: aggregate.readout for name, aggregate in aggregates.items()}
    maps = any(readout not in READOUTS for readout in readouts.values())
    if len({readout for readout in readouts.values() if maps or readout != "last"}) > 1:
        raise ConfigError(
            f"the heads of the tasks read different things, {readouts}; of vectors, 'last' alone goes with another one"
        )


def _pick(outputs: Any, place: int) -> Any:
    """Returns the outputs of one image."""
    if isinstance(outputs, Mapping):
        return {name: _pick(value, place) for name, value in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return [_pick(value, place) for value in outputs]
    return outputs[place]


def _key(name: str) -> str:
    # A module's name may not contain dots.
    return name.replace(".", "/")
