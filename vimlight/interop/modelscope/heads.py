"""The two heads of the released layout: a linear layer on the projected class token, and Semantic-FPN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.errors import CheckpointError, shown
from vimlight.tasks import AffineHead
from vimlight.tasks.semantic_fpn import SemanticFPN

__all__ = ["Linear", "build_head", "check_head", "head_tensors", "levels"]

_STRIDES = (4, 8, 16, 32)
_COUNTER = "num_batches_tracked"


class Linear(nn.Module):
    """The classification head.

    Args:
        num_features: Width of the projected class token, D.
        num_outputs: Number of classes, C.
    """

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(num_features, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits `(N, C)` of features `(N, D)`."""
        logits: Tensor = self.classifier(features)
        return logits


def levels(depth: int) -> list[int]:
    """Returns the numbers of the four blocks that Semantic-FPN reads: 3, 5, 7 and 11 of 12, and alike of other depths.

    Args:
        depth: Number of blocks.
    """
    # The ends of the first third, half, two thirds and the whole, rounded up.
    return [-(-depth * share // 12) - 1 for share in (4, 6, 8, 12)]


def build_head(task: str, tensors: Mapping[str, Tensor], width: int, outputs: int) -> nn.Module:
    """Builds the head of a task, in eval mode.

    Args:
        task: The task's name, whose beginning picks the head.
        tensors: The head's tensors, checked.
        width: Channels of the backbone.
        outputs: Width of the projected class token.
    """
    with torch.random.fork_rng(devices=[]):
        head = _empty(task, tensors, width, outputs)
    head.load_state_dict({**_counters(head), **tensors})
    return head.eval()


def check_head(task: str, tensors: Mapping[str, Tensor], width: int, outputs: int) -> None:
    """Checks the tensors of a head by name and shape.

    Args:
        task: The task's name.
        tensors: The head's tensors.
        width: Channels of the backbone.
        outputs: Width of the projected class token.

    Raises:
        CheckpointError: If one is missing, too many or of the wrong shape.
    """
    with torch.device("meta"):
        expected = _empty(task, tensors, width, outputs).state_dict()
    where = f"head_weights[{shown(task)}]"
    for name, tensor in expected.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: {shown(name)} is {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
            )
        if name not in tensors and not name.endswith(_COUNTER):
            raise CheckpointError(f"{where} lacks {shown(name)}")
    extra = [name for name in tensors if name not in expected]
    if extra:
        raise CheckpointError(f"{where} has {shown(extra[0])}, which {_kind(task)} does not")


def head_tensors(task: str, head: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a head under the released names, copied to the CPU.

    Args:
        task: The task's name.
        head: A head of the released layout or its tensors, a linear layer, or an affine head, whose standardisation
            goes into its weights.

    Raises:
        CheckpointError: If it is another head.
    """
    if isinstance(head, AffineHead):
        weight = head.weight / head.scale
        state: Mapping[str, Tensor] = {"classifier.weight": weight, "classifier.bias": head.bias - weight @ head.mean}
    elif isinstance(head, nn.Linear):
        bias = torch.zeros(head.out_features) if head.bias is None else head.bias
        state = {"classifier.weight": head.weight, "classifier.bias": bias}
    elif isinstance(head, (Linear, SemanticFPN, Mapping)):
        state = head if isinstance(head, Mapping) else head.state_dict()
    else:
        raise CheckpointError(
            f"task {shown(task)}: {type(head).__name__} is no head of the released layout; "
            "it has linear layers for 'cls' and SemanticFPN for 'seg'"
        )
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in state.items()}


def _empty(task: str, tensors: Mapping[str, Tensor], width: int, outputs: int) -> nn.Module:
    if task.startswith("cls"):
        return Linear(outputs, _rows(task, tensors, "classifier.bias"))
    return SemanticFPN(
        [width] * 4,
        _rows(task, tensors, "fpn_head.conv_seg.bias"),
        width=_rows(task, tensors, "fpn_neck.lateral_convs.0.conv.bias"),
        head_width=_rows(task, tensors, "fpn_head.scale_heads.0.0.bn.bias"),
        strides=_STRIDES,
        map_strides=16,
    )


def _rows(task: str, tensors: Mapping[str, Any], name: str) -> int:
    where = f"head_weights[{shown(task)}]"
    if name not in tensors:
        raise CheckpointError(f"{where} lacks {shown(name)}, so it is not {_kind(task)}")
    shape = tuple(tensors[name].shape)
    if len(shape) != 1 or shape[0] == 0:
        raise CheckpointError(f"{where}: {shown(name)} is {shape}, expected one dimension")
    return int(shape[0])


def _counters(head: nn.Module) -> dict[str, Tensor]:
    # Norms of old files do not count their batches; nothing is computed from it.
    return {name: tensor for name, tensor in head.state_dict().items() if name.endswith(_COUNTER)}


def _kind(task: str) -> str:
    return "a linear head" if task.startswith("cls") else "a Semantic-FPN"
