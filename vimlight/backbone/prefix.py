"""Images whose first blocks were run before, and how a model goes on from there.

A model is run *up to* a block by stopping it there. It is run *from* a block by calling, one behind the other, the
modules that hand a single tensor on to each other up to the end of `forward_features`, then `forward_head`. Which
modules these are is seen in one pass, and believed only after the features of random images come out as they should.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from vimlight.backbone.readout import Features
from vimlight.errors import BackboneError

__all__ = ["KeptImages", "Prefix", "Route", "find_route", "run_up_to", "starts"]


@dataclasses.dataclass
class Prefix:
    """What the first blocks of a backbone made of a batch of images; a backbone takes it in place of the images.

    Attributes:
        depth: How many blocks were run.
        tokens: What enters the next block, `(N, ...)`; behind the last block the model's own feature `(N, D)`.
        read: What the readout takes from the blocks that were run, by the block's name.
        readout: The readout; see `Backbone.forward`.
    """

    depth: int
    tokens: Tensor
    read: dict[str, Tensor]
    readout: str

    def __len__(self) -> int:
        """Returns the number of images N."""
        return len(self.tokens)


class KeptImages(ABC):
    """Stands for a batch of images of which something was computed before and kept; models take it for the images."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images N."""

    @abstractmethod
    def __getitem__(self, index: int) -> Tensor:
        """Returns one of the images themselves, `(3, H, W)`, as a backbone takes them."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """The shape of the images, `(N, 3, H, W)`."""

    @abstractmethod
    def prefix(self, readout: str) -> Prefix:
        """Returns what the first blocks made of the images.

        Args:
            readout: What will be read out.
        """

    @abstractmethod
    def recall(self, name: str, compute: Callable[[Any], Features]) -> Features:
        """Returns features that depend on nothing that is learned.

        Args:
            name: What they depend on besides backbone and images.
            compute: From images, or what stands for them, to the features.
        """


@dataclasses.dataclass(frozen=True)
class _Step:
    """A module, and what it is called with behind the tensor."""

    module: nn.Module
    more: tuple[Any, ...]
    named: dict[str, Any]

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self.module(x, *self.more, **self.named)
        return output


class Route:
    """The way through a model from the input of one block to its features.

    Args:
        steps: The modules in their order.
        head: From their output to the features.
        shape: Shape of one image's tensor at the start.
        start: Name of the first module.

    Attributes:
        shape: Shape of one image's tensor at the start.
        start: Name of the first module.
    """

    def __init__(self, steps: Sequence[_Step], head: Callable[[Tensor], Tensor], shape: torch.Size, start: str) -> None:
        self.shape, self.start = shape, start
        self._steps, self._head = tuple(steps), head
        # What else a step was given, such as the positions' embedding, belongs to one size of images.
        self._one_size = any(step.more or step.named for step in steps)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Returns features `(N, D)`.

        Args:
            tokens: What enters the block, `(N, ...)`.

        Raises:
            BackboneError: If the images had another size.
        """
        if self._one_size and tokens.shape[1:] != self.shape:
            raise BackboneError(
                f"tokens {tuple(tokens.shape[1:])} are those of another image size; here they are {tuple(self.shape)}"
            )
        for step in self._steps:
            tokens = step(tokens)
        return self._head(tokens)


class _ReachedError(Exception):
    """Carries what enters a block out of the model."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens


def run_up_to(model: nn.Module, block: str, images: Tensor) -> Tensor:
    """Runs a model up to a block and returns what would enter it.

    Args:
        model: The model.
        block: Name of the block's module.
        images: `(N, 3, H, W)`.
    """

    def stop(_: nn.Module, args: tuple[Any, ...]) -> NoReturn:
        raise _ReachedError(args[0])

    handle = model.get_submodule(block).register_forward_pre_hook(stop)
    try:
        model(images)
    except _ReachedError as reached:
        return reached.tokens
    finally:
        handle.remove()
    raise BackboneError(f"the model was run without its block {block!r}")


def starts(blocks: Sequence[str], depth: int) -> list[str]:
    """Returns the modules at whose start a block begins: itself, and the stages that it is the first block of.

    Args:
        blocks: Names of all blocks, in the order of the forward pass.
        depth: Number of the block.
    """
    parts = blocks[depth].split(".")
    around = [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
    earlier = blocks[depth - 1] if depth else ""
    return [blocks[depth], *(name for name in around if not earlier.startswith(f"{name}."))]


@torch.no_grad()
def find_route(model: nn.Module, block: str, size: tuple[int, int]) -> Route:
    """Finds the way from a block to the features.

    Args:
        model: A model made by timm, in eval mode.
        block: Name of the block's module.
        size: Height and width of the images.

    Raises:
        BackboneError: If there is no such way through single modules, or it leads to other features.
    """
    first = next(model.parameters())
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(first)
    images = images.contiguous(memory_format=torch.channels_last)
    features, head = getattr(model, "forward_features", None), getattr(model, "forward_head", None)
    if not callable(features) or not callable(head):
        raise BackboneError(f"{type(model).__name__} has no forward_features and forward_head to go on with")
    with _recorded(model) as calls:
        end = features(images[:1])
    if all(call.module is not model.get_submodule(block) for call in calls):
        raise BackboneError(f"{type(model).__name__} does not call {block!r}")
    steps = list(_chain(calls, model.get_submodule(block), end))
    tokens = run_up_to(model, block, images)
    route = Route(steps, head, tokens.shape[1:], block)
    expected, found = model(images), route(tokens)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4, atol=1e-4):
        raise BackboneError(f"{type(model).__name__} does more between its blocks than to call one behind the other")
    return route


@dataclasses.dataclass
class _Call:
    """One call of a module: what went in and came out, and when."""

    module: nn.Module
    args: tuple[Any, ...]
    named: dict[str, Any]
    started: int
    output: Any = None
    ended: int = -1


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[_Call]]:
    """Records the calls of a model's modules inside the context, in the order in which they began."""
    calls: list[_Call] = []
    running: list[_Call] = []
    clock = iter(range(2**62))

    def begin(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        running.append(_Call(module, args, named, next(clock)))
        calls.append(running[-1])

    def end(module: nn.Module, args: Any, named: Any, output: Any) -> None:
        call = running.pop()
        call.output, call.ended = output, next(clock)

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(module.register_forward_hook(end, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _chain(calls: Sequence[_Call], block: nn.Module, end: Tensor) -> Iterator[_Step]:
    """Follows one tensor from a block to the end, from module to module."""
    current = next(call for call in calls if call.module is block)
    while True:
        yield _Step(current.module, current.args[1:], current.named)
        # The outermost module begins first, so that whole stages are one step.
        behind = [
            call for call in calls if call.started > current.ended and call.args and call.args[0] is current.output
        ]
        if not behind:
            break
        current = behind[0]
    if current.output is not end:
        raise BackboneError(
            f"behind {type(current.module).__name__} the model does more than to hand one tensor from module to module"
        )
