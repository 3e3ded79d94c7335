"""Which columns of the target's logits an adapter reads, and which of its outputs are the task classes: by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vimlight.errors import shown
from vimlight.transmiter.adapters.transmiter import Adapter
from vimlight.transmiter.judging.methods.base import Fit, Unsuitable

__all__ = ["Columns"]


@dataclass(frozen=True)
class Columns:
    """The way into an adapter and out of it.

    Attributes:
        inputs: Columns of the cached logits that the adapter reads, in its order; none for all as they are.
        outputs: The task classes among the adapter's outputs; none for its task logits as they are.
    """

    inputs: Tensor | None
    outputs: Tensor | None

    @classmethod
    def of(cls, adapter: Adapter, data: Fit) -> Columns:
        """Matches names.

        Args:
            adapter: The adapter; without names on its card its columns must be those of the cache, or the task classes.
            data: Names the columns of the cache and the task classes.

        Raises:
            Unsuitable: If a class is missing on either side.
        """
        own, classes = adapter.card.column_names, adapter.card.class_names
        if not own:
            return cls._unnamed(adapter, data)
        places = {name: column for column, name in enumerate(data.column_names)}
        unknown = [name for name in own if name not in places]
        if unknown:
            raise Unsuitable(f"the adapter reads {len(unknown)} classes that the target lacks: {_some(unknown)}")
        foreign = [name for name in data.class_names if name not in own]
        if foreign:
            raise Unsuitable(f"the adapter does not know {len(foreign)} of the classes: {_some(foreign)}")
        inputs = None if own == data.column_names else torch.tensor([places[name] for name in own])
        if classes == data.class_names:
            return cls(inputs, None)
        return cls(inputs, torch.tensor([own.index(name) for name in data.class_names]))

    @classmethod
    def _unnamed(cls, adapter: Adapter, data: Fit) -> Columns:
        count = len(data.class_names)
        if adapter.num_classes != count or adapter.num_logits not in (count, len(data.column_names)):
            raise Unsuitable(
                f"the adapter takes {adapter.num_logits} logits of {adapter.num_classes} task classes, the target's "
                f"cache has {len(data.column_names)} of {count}"
            )
        return cls(None if adapter.num_logits == len(data.column_names) else torch.arange(count), None)

    def apply(self, adapter: Adapter, logits: Tensor, *extra: Tensor) -> Tensor:
        """Returns refined task logits `(n, C)`.

        Args:
            adapter: The adapter.
            logits: `(n, M)` as cached.
            *extra: What else the adapter takes.
        """
        read = logits if self.inputs is None else logits[:, self.inputs.to(logits.device)]
        if self.outputs is None:
            return adapter.task_logits(read, *extra)
        refined: Tensor = adapter(read, *extra)
        return refined[:, self.outputs.to(logits.device)]


def _some(names: list[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
