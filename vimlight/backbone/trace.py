"""One forward pass through a model, and what was seen of each of its modules."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.backbone.levels import Levels, Match

__all__ = ["Call", "Made", "Trace", "trace"]

_LATEST = 16


@dataclasses.dataclass
class Made:
    """A tensor for the image that a module made.

    Attributes:
        shape: Its shape.
        index: Where it stands in the module's output, if that is a tuple or list.
        match: What it was found to hold, if anything known.
    """

    shape: tuple[int, ...]
    index: int | None
    match: Match | None = None


@dataclasses.dataclass(frozen=True)
class Call:
    """What was seen of one module, which was called once.

    Attributes:
        order: Number of its end among the ends of all calls.
        input: Shape of its first argument, if that is a tensor.
        made: The tensors in its output that were not handed in.
    """

    order: int
    input: tuple[int, ...] | None
    made: tuple[Made, ...]

    @property
    def output(self) -> tuple[int, ...] | None:
        """Shape of the first tensor that it made."""
        return self.made[0].shape if self.made else None


@dataclasses.dataclass(frozen=True)
class Trace:
    """What was seen of a model in one pass.

    Attributes:
        modules: The modules by name.
        calls: Of each module that was called once.
        levels: How many maps timm itself offers.
        features: Shape of what the model returned.
    """

    modules: dict[str, nn.Module]
    calls: dict[str, Call]
    levels: int
    features: tuple[int, ...]


@torch.no_grad()
def trace(model: nn.Module, size: tuple[int, int]) -> Trace:
    """Runs a model on one random image and records the calls of its modules.

    Args:
        model: A model made by timm, in eval mode.
        size: Height and width of the image in pixels.
    """
    parameter = next(model.parameters())
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(parameter)
    recorder = _Recorder(Levels.of(model, image))
    modules = dict(model.named_modules())
    handles = [module.register_forward_hook(recorder.hook(name)) for name, module in modules.items()]
    try:
        features = model(image)
    finally:
        for handle in handles:
            handle.remove()
    once = {name: seen[0] for name, seen in recorder.calls.items() if len(seen) == 1}
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    return Trace(modules, once, len(recorder.levels), shape)


class _Recorder:
    """Notes the calls of modules, and which maps their outputs hold: timm's own, or what a convolution takes later.

    Args:
        levels: timm's own maps of the image.
    """

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.calls: dict[str, list[Call]] = {}
        self._ended = 0
        # Tokens that no level holds, until a convolution takes them as a map.
        self._open: deque[tuple[Tensor, Made]] = deque(maxlen=_LATEST)

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        """Returns the hook that notes one module's calls.

        Args:
            name: The module's name.
        """

        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            given = args[0] if args and isinstance(args[0], Tensor) else None
            if isinstance(module, nn.Conv2d) and given is not None:
                self._taken(given)
            made = tuple(self._compared(index, x) for index, x in _made(args, output))
            call = Call(self._ended, None if given is None else tuple(given.shape), made)
            self.calls.setdefault(name, []).append(call)
            self._ended += 1

        return note

    def _compared(self, index: int | None, x: Tensor) -> Made:
        made = Made(tuple(x.shape), index, self.levels.match(x))
        if made.match is None and x.dim() == 3:
            self._open.append((x, made))
        return made

    def _taken(self, maps: Tensor) -> None:
        waiting = [(x, made) for x, made in self._open if made.match is None and x.shape[-1] == maps.shape[1]]
        if not waiting or maps.dim() != 4 or len(maps) != 1:
            return
        taken = Levels([maps])
        for x, made in waiting:
            match = taken.match(x)
            made.match = match and dataclasses.replace(match, level=None)


def _made(args: tuple[Any, ...], output: Any) -> list[tuple[int | None, Tensor]]:
    """Returns the output, or those tensors of one image among several that were not handed in."""
    if isinstance(output, Tensor):
        return [(None, output)]
    if type(output) not in (tuple, list):
        return []
    given = [x for arg in args for x in (arg if isinstance(arg, (tuple, list)) else [arg])]
    return [
        (index, x)
        for index, x in enumerate(output)
        if isinstance(x, Tensor) and x.dim() > 1 and len(x) == 1 and all(x is not other for other in given)
    ]
