"""Which modules of a timm model are its residual blocks, and how their outputs are laid out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn

from vimlight.backbone.layout import Layout
from vimlight.backbone.levels import Match
from vimlight.backbone.trace import Call, Trace

__all__ = ["block_names", "layouts_of"]


def block_names(model: nn.Module, seen: Trace) -> list[str]:
    """Lists the blocks in the order of the forward pass.

    What timm's own patterns for layers call a block is taken for one, unless most of its weights lie in blocks of its
    own: then it is a stage. Without such patterns the innermost elements of sequences and the model's parts are taken.

    Args:
        model: A model made by timm.
        seen: What was seen of it.
    """
    finder = _Finder(seen)
    names = finder.matched(_patterns(model)) or finder.unnamed()
    return sorted(names, key=lambda name: seen.calls[name].order)


def _patterns(model: nn.Module) -> list[str]:
    matcher = getattr(model, "group_matcher", None)
    groups = matcher(coarse=False) if callable(matcher) else {}
    entries = [
        entry
        for key, value in (groups.items() if isinstance(groups, dict) else ())
        if "block" in key
        for entry in ([value] if isinstance(value, str) else value)
    ]
    # An entry with fixed ordinals is a norm or a downsampling between the blocks.
    return [
        entry if isinstance(entry, str) else entry[0] for entry in entries if isinstance(entry, str) or entry[1] is None
    ]


class _Finder:
    """Finds blocks among the modules that were called once and made a tensor for the image."""

    def __init__(self, seen: Trace) -> None:
        self.modules = seen.modules
        self.called = {name for name, call in seen.calls.items() if name and _one_image(call)}

    def matched(self, patterns: Sequence[str]) -> list[str]:
        names = [name for name in self.modules if any(re.fullmatch(pattern.lstrip("^"), name) for pattern in patterns)]
        found = [name for name in names if any(self.modules[name].children())]
        blocks = [block for name in _innermost(found) for block in self._refined(name)]
        # A model without any grouping inside, such as VGG, is a row of layers.
        return blocks or [name for name in names if name in self.called and _weighted(self.modules[name])]

    def inside(self, name: str) -> list[str]:
        """Returns the innermost elements of sequences below a module that are more than a layer with its norm."""
        start = f"{name}." if name else ""
        return _innermost(
            [
                inner
                for inner in self.modules
                if inner.startswith(start) and re.search(r"\.\d+$", inner) and self._is_block(inner)
            ]
        )

    def unnamed(self) -> list[str]:
        """Returns the elements of all sequences, and the model's own parts that hold none."""
        parts = [name for name in self.modules if name and "." not in name and self._is_block(name)]
        return self.inside("") + [name for name in parts if not self.inside(name)]

    def _refined(self, name: str) -> list[str]:
        inner = self.inside(name)
        if inner and 2 * sum(map(self._size, inner)) >= self._size(name):
            return inner
        return [name] if name in self.called else []

    def _is_block(self, name: str) -> bool:
        """Tells whether a module is more than a layer with its norm, and more than a row of modules."""
        module = self.modules[name]
        return name in self.called and type(module) is not nn.Sequential and sum(map(_mixes, module.modules())) > 1

    def _size(self, name: str) -> int:
        return sum(parameter.numel() for parameter in self.modules[name].parameters())


def _innermost(names: Sequence[str]) -> list[str]:
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


def _weighted(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv2d))


def _mixes(module: nn.Module) -> bool:
    """Tells whether a module is a layer that mixes channels; a depthwise convolution is half a layer."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups < module.in_channels)


def _one_image(call: Call) -> bool:
    return call.output is not None and len(call.output) > 1 and call.output[0] == 1


def layouts_of(model: nn.Module, names: Sequence[str], seen: Trace) -> dict[str, Layout]:
    """Tells how the outputs of blocks are laid out; a block of which that is not certain is left out.

    Args:
        model: A model made by timm.
        names: The blocks, in the order of the forward pass.
        seen: What was seen of the model.
    """
    found = {}
    for run in _runs(names, seen):
        for name in run.names:
            layout = run.layout(seen.calls[name].order) or _by_layers(name, seen) or _of_tokens(model, name, seen)
            if layout is not None:
                found[name] = layout
    return found


class _Run:
    """Consecutive blocks of one output shape: one residual stream, which keeps its positions.

    Args:
        names: The blocks.
        known: Outputs of that shape whose layout is certain, each with the number of its end.
    """

    def __init__(self, names: Sequence[str], known: Sequence[tuple[int, Match]]) -> None:
        self.names, self._known = names, sorted(known, key=lambda pair: pair[0])

    def layout(self, order: int) -> Layout | None:
        """Returns the layout of the next known output, or else of the last one before."""
        later = [match for number, match in self._known if number >= order]
        found = later[0] if later else self._known[-1][1] if self._known else None
        return found.layout if found else None


def _runs(names: Sequence[str], seen: Trace) -> Iterator[_Run]:
    calls, start = seen.calls, 0
    while start < len(names):
        shape, end = calls[names[start]].output, start
        while end < len(names) and calls[names[end]].output == shape:
            end += 1
        first = calls[names[start]].order
        last = calls[names[end]].order if end < len(names) else 2**62
        known = [
            (call.order, made.match)
            for call in calls.values()
            for made in call.made
            if made.match and made.shape == shape and first <= call.order < last
        ]
        yield _Run(names[start:end], known)
        start = end


def _by_layers(name: str, seen: Trace) -> Layout | None:
    """Reads a map's layout off the layers that make or take tensors of its shape."""
    shape = seen.calls[name].output
    if shape is None or len(shape) != 4:
        return None
    first, last = set(), set()
    for other, call in seen.calls.items():
        module = seen.modules[other]
        if shape not in (call.input, call.output):
            continue
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            first.add(other)
        elif isinstance(module, nn.Linear):
            last.add(other)
    if bool(first) == bool(last):
        return None
    return Layout("NCHW" if first else "NHWC")


def _of_tokens(model: nn.Module, name: str, seen: Trace) -> Layout | None:
    shape = seen.calls[name].output
    if shape is None or len(shape) == 4:
        return None
    if len(shape) == 2:
        return Layout("NC")
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    prefix = getattr(model, "num_prefix_tokens", 0)
    # What a model says of itself counts where it gives no maps to compare with.
    if not seen.levels and grid is not None and len(shape) == 3 and shape[1] == prefix + grid[0] * grid[1]:
        return Layout("NLC", prefix, (int(grid[0]), int(grid[1])))
    return Layout("NLC")
