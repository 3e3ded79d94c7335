"""Keeping less for the backward pass: what frozen parts made of kept tensors is computed again when it is asked for.

Autograd saves tensors through hooks. While a `Ledger` is open it notes how frozen modules, and sums with what plug-ins
add, made their outputs; of a tensor that was made so, the graph keeps the recipe and not the numbers. The graph itself
stays as it is, so whatever no recipe is known of is kept as ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from timm import layers as timm_layers
from torch import Tensor, nn
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from vimlight.backbone.hooks import Hooks
from vimlight.backbone.site import Sites
from vimlight.errors import BackboneError, unknown_name

__all__ = ["MEMORY", "Ledger", "computed_again"]

# Roles of the layers whose outputs are computed again, by how much may be kept; without any, nothing is.
MEMORY: dict[str, tuple[str, ...]] = {
    "plain": (),
    "light": ("fc1", "proj"),
    "lean": ("qkv", "q", "k", "v", "kv", "fc1", "proj", "fc2"),
}

# Their output depends on their input alone, position by position or token by token, and costs next to nothing.
_LIGHT = (
    nn.LayerNorm, nn.GELU, nn.SiLU, nn.ReLU, timm_layers.RmsNorm, timm_layers.GELU, timm_layers.GELUTanh,
    timm_layers.QuickGELU, timm_layers.LayerScale,
)  # fmt: skip

Memo = dict["_Recipe", Tensor]


def computed_again(memory: str) -> tuple[str, ...]:
    """Returns the roles of the layers whose outputs are not kept.

    Args:
        memory: How much may be kept; a name in `MEMORY`.

    Raises:
        UnknownNameError: If there is no such name.
    """
    if memory not in MEMORY:
        raise unknown_name("memory", memory, MEMORY)
    return MEMORY[memory]


class _Kept:
    """A tensor that the graph keeps."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor, tensor._version

    def value(self, memo: Memo) -> Tensor:
        if self.tensor._version != self.version:
            raise BackboneError(
                f"a tensor {tuple(self.tensor.shape)} that the backward pass needs was changed in place after the "
                "forward pass had used it; change a copy"
            )
        return self.tensor


@dataclasses.dataclass(frozen=True)
class _Part:
    """A view of what a recipe makes, or all of it."""

    recipe: _Recipe
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def value(self, memo: Memo) -> Tensor:
        whole = self.recipe.value(memo)
        if whole.shape == self.size and whole.stride() == self.stride:
            return whole
        return whole.as_strided(self.size, self.stride, whole.storage_offset() + self.offset)


class _Recipe:
    """How all of a storage is made again.

    Args:
        function: From the sources to the tensor.
        sources: What it was made of.
        made: The tensor.
        depth: Number of the block that it was made in.
    """

    def __init__(
        self, function: Callable[..., Tensor], sources: tuple[_Kept | _Part, ...], made: Tensor, depth: int
    ) -> None:
        self.function, self.sources, self.depth = function, sources, depth
        self.dtype, self.version, self.stride = made.dtype, made._version, made.stride()
        # The number of a storage is its own as long as somebody refers to it, even weakly.
        self.storage = StorageWeakRef(made.untyped_storage())

    def value(self, memo: Memo) -> Tensor:
        if self not in memo:
            made = self.function(*(source.value(memo) for source in self.sources))
            if made.stride() != self.stride:
                made = torch.empty_strided(made.shape, self.stride, dtype=made.dtype, device=made.device).copy_(made)
            memo[self] = made
        return memo[self]


class Ledger:
    """Notes for one forward pass or several how tensors were made; a context around them.

    Args:
        blocks: The backbone's blocks: what is computed again is remembered until the backward pass leaves the block.
        heavy: The linear layers whose outputs are computed again; norms and activations always are.
        device: Where the backbone is.
    """

    def __init__(self, blocks: Iterable[nn.Module], heavy: Iterable[nn.Module], device: torch.device) -> None:
        self._blocks, self._heavy, self._device = list(blocks), list(heavy), device
        self._hooks, self._saving = Hooks(), ExitStack()
        self._notes: dict[int, _Recipe] = {}
        self._roots: dict[int, StorageWeakRef] = {}
        self._known: dict[tuple[Node | None, int], _Kept | _Part] = {}
        self._inside: nn.Module | None = None
        self._depth, self._memo, self._memo_depth = 0, Memo(), 0
        self._autocast = (torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type))

    @classmethod
    def of(cls, model: nn.Module, sites: Sites, places: Sequence[str]) -> Ledger:
        """Makes the ledger of a frozen model.

        Args:
            model: The model.
            sites: Its sites.
            places: Roles of the linear layers whose outputs are computed again.
        """
        blocks = [model.get_submodule(site.input_module) for site in sites.blocks]
        names = dict.fromkeys(site.input_module for site in sites.layers if site.place in places)
        layers = [model.get_submodule(name) for name in names]
        heavy = [layer for layer in layers if isinstance(layer, nn.Linear)]
        return cls(blocks, heavy, next(model.parameters()).device)

    def __enter__(self) -> Ledger:
        """Begins to note."""
        light = [module for block in self._blocks for module in block.modules() if isinstance(module, _LIGHT)]
        for block in self._blocks:
            self._hooks.before(block, _uncompiled(self._begin_block), first=True)
        for module in [*light, *self._heavy]:
            self._hooks.before(module, _uncompiled(self._before), first=True)
            self._hooks.after(module, _uncompiled(self._after), first=True)
        self._saving.enter_context(saved_tensors_hooks(self._pack, self._unpack))
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stops; what the graph needs for its backward pass it holds itself."""
        self._saving.close()
        self._hooks.remove()
        self._notes.clear()
        self._roots.clear()
        self._known.clear()

    def source(self, tensor: Tensor) -> _Kept | _Part:
        """Returns how a tensor can be had in the backward pass: by a recipe, or only by keeping it."""
        recipe = self._notes.get(tensor.untyped_storage()._cdata)
        if recipe is None or recipe.version != tensor._version or recipe.dtype != tensor.dtype:
            return _Kept(tensor.detach())
        return _Part(recipe, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def note(self, made: Tensor, function: Callable[..., Tensor], *sources: _Kept | _Part) -> None:
        """Notes how a tensor was made, if what it was made of will be there anyway.

        Args:
            made: The tensor.
            function: What makes it again of the sources' values.
            *sources: What `source` returned of each before the tensor was made.
        """
        storage = made.untyped_storage()
        self._notes.pop(storage._cdata, None)
        there = all(isinstance(source, _Part) or self._is_root(source.tensor, storage) for source in sources)
        if there and storage.nbytes() == made.numel() * made.element_size():
            self._notes[storage._cdata] = _Recipe(function, sources, made, self._depth)
        self._know(made, self.source(made))

    def _know(self, tensor: Tensor, source: _Kept | _Part) -> None:
        if tensor.grad_fn is not None:
            self._known[tensor.grad_fn, tensor.output_nr] = source

    def repeatable(
        self, function: Callable[[Tensor], Tensor], x: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Calls a plug-in's function between the backbone's own, and returns what calls it again with the same result.

        Args:
            function: The function.
            x: Its input.

        Returns:
            The output, and what repeats it whatever is drawn at random; nothing for a function that may depend on more
            than its input and parameters: one that is no module or that writes to its buffers, as batch norms do.
        """
        inside, self._inside = self._inside, None
        result = _repeatable(function, x)
        self._inside = inside
        return result

    def _is_root(self, tensor: Tensor, other: torch.UntypedStorage) -> bool:
        """Tells whether the graph keeps a tensor by itself, and it was not overwritten by what was made of it."""
        storage = tensor.untyped_storage()
        return storage._cdata in self._roots and storage._cdata != other._cdata

    def _begin_block(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        self._depth += 1
        self._known.clear()
        if not args or not isinstance(args[0], Tensor):
            return
        source = self.source(args[0])
        if isinstance(source, _Kept):
            # The stream between two blocks is what everything else is made of.
            self._keep(args[0])
        self._know(args[0], source)

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._roots[storage._cdata] = StorageWeakRef(storage)

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        # What hooks of others compute before the layer is not the layer's; the keys of this package's own are negative.
        if isinstance(module, nn.Linear) and all(key < 0 for key in module._forward_pre_hooks):
            self._inside = module
        if args and isinstance(args[0], Tensor):
            self._recognise_sum(args[0])

    def _recognise_sum(self, x: Tensor) -> None:
        """Notes a residual sum, which no module makes: the graph says what was added."""
        node: Any = x.grad_fn
        if node is None or node.name() != "AddBackward0" or x.untyped_storage()._cdata in self._notes:
            return
        terms = [self._known[term] for term in node.next_functions if term in self._known]
        if len(terms) == 2 and node._saved_alpha == 1:
            self.note(x, torch.add, *terms)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._inside = None
        if len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            self.note(output, module.forward, self.source(args[0]))

    def _recognise_cast(self, tensor: Tensor) -> None:
        """Notes a copy in the type of mixed precision, which no module makes either."""
        whole = tensor._base if tensor._is_view() and tensor._base is not None else tensor
        node: Any = whole.grad_fn
        if node is None or node.name() != "ToCopyBackward0" or whole.untyped_storage()._cdata in self._notes:
            return
        source = self._known.get(node.next_functions[0])
        if source is not None:
            self.note(whole, partial(torch.Tensor.to, dtype=whole.dtype), source)

    def _pack(self, tensor: Tensor) -> _Kept | _Part:
        self._recognise_cast(tensor)
        found = self._cast_weight(tensor) or self.source(tensor)
        if isinstance(found, _Part):
            return found
        self._keep(tensor)
        return _Kept(tensor)

    def _cast_weight(self, tensor: Tensor) -> _Part | None:
        """Recognises the copy of a layer's weight in the type of mixed precision, which its gradient needs."""
        weight = None if self._inside is None else self._inside.weight
        if not isinstance(weight, Tensor) or tensor.requires_grad or tensor.dtype == weight.dtype:
            return None
        if tensor.shape not in (weight.shape, weight.t().shape):
            return None
        recipe = _Recipe(partial(weight.to, tensor.dtype), (), tensor, self._depth)
        recipe.stride = weight.stride()
        return _Part(recipe, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def _unpack(self, packed: _Kept | _Part) -> Tensor:
        if isinstance(packed, _Kept):
            return packed.value({})
        if packed.recipe.depth != self._memo_depth:
            self._memo, self._memo_depth = {}, packed.recipe.depth
        enabled, dtype = self._autocast
        with torch.no_grad(), torch.autocast(self._device.type, dtype, enabled, cache_enabled=False):
            return packed.value(self._memo)


def _uncompiled(hook: Callable[..., None]) -> Callable[..., None]:
    """Returns a hook that does nothing in a compiled part of a model, rather than to break its graph."""

    def call(*arguments: Any) -> None:
        if not torch.compiler.is_compiling():
            hook(*arguments)

    return call


def _repeatable(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    if not isinstance(function, nn.Module) or x.device.type not in ("cpu", "cuda"):
        return function(x), None
    random, buffers = _random_state(x.device), _versions(function)
    output = function(x)
    if buffers != _versions(function):
        return output, None
    same = torch.equal(random, _random_state(x.device))
    return output, function if same else partial(_replay, function, random)


def _versions(module: nn.Module) -> list[int]:
    return [buffer._version for buffer in module.buffers()]


def _replay(function: Callable[[Tensor], Tensor], state: Tensor, x: Tensor) -> Tensor:
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        if x.is_cuda:
            torch.cuda.set_rng_state(state, x.device)
        else:
            torch.set_rng_state(state)
        return function(x)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
