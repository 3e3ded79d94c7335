"""Hooks that come and go with every pass under the same keys, as what `torch.compile` makes of a pass wants them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar, cast

import torch
from torch import nn

__all__ = ["Hooks", "uncompiled"]

F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(function: F) -> F:
    """Keeps a function out of compiled graphs."""
    return cast(F, torch.compiler.disable(function))


class Hooks:
    """Hooks on the modules of a model until `remove` is called.

    torch numbers hooks for ever on, and a compiled pass is for the numbers that it saw: new ones compile it anew. Here
    the keys are the first that are free, counted down from -1.
    """

    def __init__(self) -> None:
        self._put: list[tuple[MutableMapping[int, Any], int]] = []

    def before(self, module: nn.Module, hook: Callable[..., Any], *, first: bool = False) -> None:
        """Calls a hook as `nn.Module.register_forward_pre_hook` does.

        Args:
            module: The module.
            hook: From the module and its arguments to changed arguments.
            first: Whether it comes before the hooks that are there.
        """
        self._insert(module._forward_pre_hooks, hook, first)

    def after(self, module: nn.Module, hook: Callable[..., Any], *, always: bool = False, first: bool = False) -> None:
        """Calls a hook as `nn.Module.register_forward_hook` does.

        Args:
            module: The module.
            hook: From the module, its arguments and its output to a changed output.
            always: Whether to call it even where the module fails.
            first: Whether it comes before the hooks that are there.
        """
        key = self._insert(module._forward_hooks, hook, first)
        if always:
            module._forward_hooks_always_called[key] = True
            self._put.append((module._forward_hooks_always_called, key))

    @uncompiled
    def remove(self) -> None:
        """Takes every hook away, and leaves those of others where they are."""
        for hooks, key in self._put:
            hooks.pop(key, None)
        self._put.clear()

    @uncompiled
    def _insert(self, hooks: MutableMapping[int, Any], hook: Callable[..., Any], first: bool = False) -> int:
        key = -1
        while key in hooks:
            key -= 1
        hooks[key] = hook
        if first:
            cast("OrderedDict[int, Any]", hooks).move_to_end(key, last=False)
        self._put.append((hooks, key))
        return key
