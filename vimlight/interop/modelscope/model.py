"""A released checkpoint as a model: one frozen backbone and zoo, and for each task its gates and its head."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from vimlight.aggregation import Aggregate, aggregate
from vimlight.aggregation.ens_moe import EnsMoe
from vimlight.backbone import Backbone, Layout
from vimlight.errors import CheckpointError, DataError, shown, unknown_name
from vimlight.interop.modelscope.heads import Linear, build_head, head_tensors, levels
from vimlight.interop.modelscope.layout import Checkpoint, Labels, TaskWeights, places
from vimlight.interop.modelscope.tower import Tower, default_preprocessing, tower_of
from vimlight.interop.modelscope.units import module_tensors, plugin_of
from vimlight.plugins import Attachment, Plugin

__all__ = ["ReleasedViM", "gates_of", "model_of", "module_names"]


_NEVER = torch.tensor(float("-inf"))


class ReleasedViM(nn.Module):
    """Images and the name of a task in, logits out, as the released model computes them.

    The backbone and the zoo are frozen; a task's gates and head can be trained.

    Args:
        backbone: The backbone.
        modules: The zoo's modules by name, in order.
        arch: The backbone's name in the released layout.

    Attributes:
        backbone: The backbone.
        modules_in_zoo: The modules by name.
        labels: By task, the names of its classes, where there are any.
    """

    def __init__(self, backbone: Backbone, modules: Mapping[str, Plugin], arch: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.modules_in_zoo = dict(modules)
        self.arch = arch
        self.labels: dict[str, Labels] = {}
        self.depth = len(backbone.blocks)
        # In lists: names of tasks may hold dots, which names of modules may not.
        self._names: list[str] = []
        self.aggregators, self.heads = nn.ModuleList(), nn.ModuleList()
        self.eval()

    def forward(self, images: Tensor, task: str) -> Tensor:
        """Computes logits.

        Args:
            images: Preprocessed images, `(N, 3, H, W)`.
            task: Name of the task.

        Returns:
            `(N, C)` for classification; for segmentation `(N, C, 4 P, 4 P)` for P patches along a side, which is one
            position for every four pixels where patches have sixteen.

        Raises:
            UnknownNameError: If there is no such task.
            DataError: If the images are of another size.
        """
        feature, maps = self.features(images, task)
        head = self.head(task)
        logits: Tensor = head(feature) if isinstance(head, Linear) else head([maps[k] for k in levels(self.depth)])
        return logits

    def features(self, images: Tensor, task: str) -> tuple[Tensor, list[Tensor]]:
        """Computes what the heads read.

        Args:
            images: Preprocessed images, `(N, 3, H, W)`.
            task: Name of the task, whose gates are used.

        Returns:
            The projected class token, `(N, D)`, and the patches behind every block, `(N, W, P, P)` each.

        Raises:
            UnknownNameError: If there is no such task.
            DataError: If the images are of another size.
        """
        size = (3, *self.backbone.preprocessing.size)
        if images.dim() != 4 or images.shape[1:] != size:
            raise DataError(f"images must be (N, {size[0]}, {size[1]}, {size[2]}), got {tuple(images.shape)}")
        aggregator = self.aggregator(task)
        maps: list[Tensor] = []
        with ExitStack() as stack:
            stack.enter_context(Attachment(self.backbone, aggregator.slots() if isinstance(aggregator, EnsMoe) else []))
            # Behind the attachment, so that they see what the modules added.
            for site in self.backbone.blocks:
                block = self.backbone.model.get_submodule(site.output_module)
                stack.callback(block.register_forward_hook(_tap(maps, site.layout)).remove)
            return self.backbone(images), maps

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in order."""
        return list(self._names)

    def aggregator(self, task: str) -> Aggregate:
        """Returns the aggregator of a task, `ens_moe` over the zoo.

        Args:
            task: Name of the task.

        Raises:
            UnknownNameError: If there is no such task.
        """
        return cast(Aggregate, self.aggregators[self._index(task)])

    def head(self, task: str) -> nn.Module:
        """Returns the head of a task.

        Args:
            task: Name of the task.

        Raises:
            UnknownNameError: If there is no such task.
        """
        return self.heads[self._index(task)]

    def add(self, name: str, aggregator: Aggregate, head: nn.Module, labels: Labels | None = None) -> None:
        """Adds a task.

        Args:
            name: Its name, which begins with `cls` or `seg`.
            aggregator: Its aggregator over this backbone and these modules.
            head: Its head.
            labels: Names of its classes.
        """
        self._names.append(name)
        self.aggregators.append(aggregator)
        self.heads.append(head)
        if labels is not None:
            self.labels[name] = labels

    def to_checkpoint(self) -> Checkpoint:
        """Returns everything as the released layout has it, copied to the CPU."""
        tower, looks = tower_of(self.backbone), self.backbone.preprocessing
        tasks = {
            name: TaskWeights(
                gates_of(name, self.aggregator(name), self.modules_in_zoo, tower.depth),
                head_tensors(name, self.head(name)),
                self.labels.get(name),
            )
            for name in self._names
        }
        return Checkpoint(
            self.arch,
            tower.tensors,
            tuple(module_tensors(name, plugin, tower.depth) for name, plugin in self.modules_in_zoo.items()),
            tasks,
            tower.odd_heads,
            None if looks == default_preprocessing(tower.image_size) else looks,
        )

    def _index(self, task: str) -> int:
        if task not in self._names:
            raise unknown_name("task", task, self._names)
        return self._names.index(task)


def model_of(checkpoint: Checkpoint) -> ReleasedViM:
    """Builds the model of a checkpoint, in float32 and eval mode.

    Args:
        checkpoint: The checkpoint.
    """
    tower = Tower.of(checkpoint.backbone, checkpoint.heads)
    backbone = tower.build(checkpoint.preprocessing)
    names = module_names(len(checkpoint.modules))
    plugins = [plugin_of(module, backbone).float() for module in checkpoint.modules]
    model = ReleasedViM(backbone, dict(zip(names, plugins, strict=True)), checkpoint.arch)
    for name, task in checkpoint.tasks.items():
        head = build_head(name, task.head, tower.width, tower.outputs)
        model.add(name, _aggregator(backbone, model.modules_in_zoo, task), head, task.labels)
    return model.eval()


def module_names(count: int) -> list[str]:
    """Names modules that have none: `vim-1`, `vim-2`, ..., such that alphabetical order is theirs.

    Args:
        count: How many there are.
    """
    return [f"vim-{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def gates_of(task: str, aggregator: Aggregate, modules: Mapping[str, Plugin], depth: int) -> dict[str, Tensor]:
    """Returns, by place, the logits of the modules there; a module that the task does not use has minus infinity.

    Args:
        task: The task's name, for messages.
        aggregator: Its aggregator.
        modules: All modules by name, in the order that is wanted.
        depth: Number of the backbone's blocks.

    Raises:
        CheckpointError: If it is no `ens_moe`, uses a module that is not among these or none where there are some, has
            a fresh one beside the zoo, or its gates do not sum to 1.
    """
    logits = _place_logits(task, aggregator)
    missing = [name for name in aggregator.names if name not in modules]
    if missing:
        raise CheckpointError(
            f"task {shown(task)} uses module {shown(missing[0])}, which is not among those that are written"
        )
    gates = {}
    for place in places(depth):
        present = [name for name, plugin in modules.items() if place in plugin.site_names]
        row = dict(zip(aggregator.names, logits.get(place, []), strict=False))
        gates[place] = torch.stack([row.get(name, _NEVER) for name in present]) if present else torch.zeros(0)
        if present and bool((gates[place] == _NEVER).all()):
            raise CheckpointError(
                f"task {shown(task)} uses no module at {shown(place)}, where {shown(present[0])} is; its gates would "
                "not sum to 1"
            )
    return gates


def _place_logits(task: str, aggregator: Aggregate) -> dict[str, Tensor]:
    """Returns the logits `(K,)` of each place, minus infinity for modules that have no share."""
    if not aggregator.names:
        return {}
    if not isinstance(aggregator, EnsMoe):
        kind = type(aggregator).__name__
        raise CheckpointError(f"task {shown(task)}: the released layout holds ens_moe alone, not {kind}")
    if aggregator.extra is not None:
        raise CheckpointError(f"task {shown(task)}: a fresh module beside the zoo has no gate; add it to the zoo first")
    gates, logits = aggregator.gates.detach().cpu(), aggregator.place_logits.detach().cpu()
    if not torch.allclose(gates.sum(dim=1), torch.ones(len(gates)), atol=1e-5):
        raise CheckpointError(
            f"task {shown(task)}: the released layout's gates sum to 1 at every place; aggregate with strength='one'"
        )
    hidden = ~aggregator.present.cpu() if aggregator.top_k is None else gates == 0
    return dict(zip(aggregator.places, logits.masked_fill(hidden, float("-inf")), strict=True))


def _aggregator(backbone: Backbone, modules: Mapping[str, Plugin], task: TaskWeights) -> Aggregate:
    if not modules:
        return aggregate(backbone, [], "none")
    made = aggregate(backbone, list(modules.values()), "ens_moe", names=list(modules), strength="one")
    assert isinstance(made, EnsMoe)
    with torch.no_grad():
        for row, (place, here) in enumerate(zip(made.places, made.present, strict=True)):
            made.logits[row, here] = task.gates[place].float()
    return made


def _tap(maps: list[Tensor], layout: Layout) -> Any:
    """Returns a hook that keeps the patches of a block's output as a map."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        maps.append(output[:, layout.prefix :].unflatten(1, layout.grid).permute(0, 3, 1, 2))

    return hook
