"""The released ViM layout as values: what a `pytorch_model.pt` holds, in the order and under the names of its tensors.

The file is one dictionary. Its modules lie by layer and place, its tasks apart from them; here a module is what carries
one number in all of those lists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vimlight.backbone import Preprocessing

__all__ = ["ALGORITHM", "PLACES", "UNIT", "Checkpoint", "Labels", "TaskWeights", "pack", "places"]

Labels = list[str] | dict[int, str]
ALGORITHM = "Ens-MoE"
# Role of a place, and the part of its two keys in the layout that differs.
PLACES = {"attn": "vim_att", "mlp": "vim_mlp"}
# Tensors of one module at one place, and what they are called in a convpass unit.
UNIT = {
    "adapter_down.weight": "down.weight",
    "adapter_down.bias": "down.bias",
    "adapter_conv.weight": "conv.weight",
    "adapter_conv.bias": "conv.bias",
    "adapter_up.weight": "up.weight",
    "adapter_up.bias": "up.bias",
}


@dataclasses.dataclass(frozen=True)
class TaskWeights:
    """One downstream task.

    Attributes:
        gates: By place, the logits of the modules that are there, `(n,)`.
        head: The head's tensors by name.
        labels: Names of the classes, if there are any.
    """

    gates: dict[str, Tensor]
    head: dict[str, Tensor]
    labels: Labels | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A released checkpoint.

    Attributes:
        arch: The backbone's name in the file; nothing is read off it.
        backbone: The tower's tensors, named as in CLIP.
        modules: For each module, by place, its six tensors.
        tasks: The tasks by name.
        heads: Number of attention heads, where it is not one for every 64 channels.
        preprocessing: What the backbone expects of its images, where it is not what the release does.
    """

    arch: str
    backbone: dict[str, Tensor]
    modules: tuple[dict[str, dict[str, Tensor]], ...]
    tasks: dict[str, TaskWeights]
    heads: int | None = None
    preprocessing: Preprocessing | None = None

    def present(self, place: str) -> list[int]:
        """Returns the numbers of the modules that are at a place."""
        return [number for number, module in enumerate(self.modules) if place in module]


def places(depth: int) -> list[str]:
    """Returns the names of all places of a tower, as sites are named, in the order of the forward pass.

    Args:
        depth: Number of blocks.
    """
    return [f"blocks.{layer}.{role}" for layer in range(depth) for role in PLACES]


def pack(checkpoint: Checkpoint, depth: int) -> dict[str, Any]:
    """Returns the dictionary that the released file is.

    Args:
        checkpoint: The values.
        depth: Number of blocks.
    """
    return {
        "meta_info": _meta(checkpoint),
        "backbone_weights": checkpoint.backbone,
        "ViM_weights": _by_layer(depth, "weights", checkpoint.modules),
        "ViM_agg_weights": {
            name: [
                {f"{key}_agg": task.gates[f"blocks.{layer}.{role}"] for role, key in PLACES.items()}
                for layer in range(depth)
            ]
            for name, task in checkpoint.tasks.items()
        },
        "head_weights": {name: task.head for name, task in checkpoint.tasks.items()},
    }


def _by_layer(depth: int, suffix: str, modules: Sequence[Mapping[str, Any]]) -> list[dict[str, list[Any]]]:
    return [
        {
            f"{key}_{suffix}": [module[place] for module in modules if (place := f"blocks.{layer}.{role}") in module]
            for role, key in PLACES.items()
        }
        for layer in range(depth)
    ]


def _meta(checkpoint: Checkpoint) -> dict[str, Any]:
    labels = {name: task.labels for name, task in checkpoint.tasks.items() if task.labels is not None}
    meta = {
        "task_list": list(checkpoint.tasks),
        "backbone_arch": checkpoint.arch,
        "ViM_agg_algo": ALGORITHM,
        "label_map": labels,
    }
    # What the layout has no place for and the released loader does not look at.
    own: dict[str, Any] = {}
    if checkpoint.heads is not None:
        own["heads"] = checkpoint.heads
    if checkpoint.preprocessing is not None:
        own["preprocessing"] = checkpoint.preprocessing.as_dict()
    return {**meta, **({"vimlight": own} if own else {})}
