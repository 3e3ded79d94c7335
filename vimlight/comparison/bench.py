"""Where a method is fitted: its task, images, backbone and modules, opened; and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import nn

from vimlight.aggregation import Aggregate
from vimlight.backbone import Backbone
from vimlight.comparison.catalogue import HINDSIGHT, Method
from vimlight.comparison.data import ComparisonData
from vimlight.comparison.memory import FeatureMemory
from vimlight.comparison.pulse import Pulse
from vimlight.comparison.study import Group, Study, names_for
from vimlight.tasks import SOLVERS, Task
from vimlight.training.base import build_task, choose_readout
from vimlight.zoo import Zoo

__all__ = ["Bench", "Fitted"]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A method that was fitted and tested.

    Attributes:
        scores: All test scores by name.
        aggregator: What computes the features.
        head: Its head.
        modules: Names of the modules that it uses.
        gates: Whether its gates say something.
    """

    scores: Mapping[str, float]
    aggregator: Aggregate
    head: nn.Module
    modules: list[str]
    gates: bool = False


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where methods are fitted: a study's group, with its backbone, data and task opened.

    Attributes:
        study: The study.
        group: The group.
        backbone: The backbone.
        data: The images.
        memory: Features that this process remembers.
        pulse: Whom to tell how far a training is.
    """

    study: Study
    group: Group
    backbone: Backbone
    data: ComparisonData
    memory: FeatureMemory
    pulse: Pulse

    @cached_property
    def task(self) -> Task:
        """The kind of task, which has seen the training targets."""
        found = build_task(self.group.task.task, self.data.kind, self.data.class_names)
        found.prepare(self.data.tables["train"].targets)
        return found

    @property
    def device(self) -> torch.device:
        """Where features are computed that nothing is learnt through."""
        on_gpu = torch.cuda.is_available() and self.study.plan.accelerator != "cpu"
        return torch.device("cuda" if on_gpu else "cpu")

    def zoo(self, method: Method) -> Zoo:
        """Returns the zoo of a method."""
        return self.study.zoo(self.group.backbone, method.zoo)

    @cached_property
    def hashes(self) -> dict[str, dict[str, str | None]]:
        """Hashes of modules by zoo and name."""
        zoos = {method.zoo for method in self.study.plan.methods if method.needs_modules}
        return {zoo: self.study.hashes(self.group.backbone, zoo) for zoo in zoos}

    def names(self, method: Method) -> list[str]:
        """Returns the names of the modules of a method."""
        return names_for(self.group.task, method, self.hashes.get(method.zoo, {}))

    def readout(self, method: Method) -> str:
        """Returns what the head of a method reads; of maps, the last feature is that of the last block."""
        asked = method.readout or self.group.task.readout
        if asked == "last" and self.task.reads == "maps":
            asked = f"maps:{len(self.backbone.blocks) - 1}"
        return choose_readout(self.task, asked, "grid")

    @property
    def solver(self) -> str:
        """How heads in closed form are solved."""
        return self.group.task.head or "ridge"

    def is_closed(self, method: Method) -> bool:
        """Tells whether nothing of a method is learnt by gradient, and its features are worth remembering."""
        fixed = method.how in ("none", "uniform", "best_single", "select", "k_streams", HINDSIGHT)
        vectors = self.task.reads == "vector" and self.task.closed_form and self.solver in SOLVERS
        return fixed and vectors and "final" not in self.data.tables and not method.extra_module and not method.settings
