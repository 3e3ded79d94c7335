"""How much memory tensors hold: at most at a time during a call, and between the forward and the backward pass."""

from __future__ import annotations

import ctypes
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["keep_heap", "kept_by_graph", "kept_for_backward", "peak_bytes", "peak_of_process", "peak_of_this_process"]


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_heap() -> bool:
    """Lets the C library keep memory that is freed, where it can be told to.

    Left alone it returns large blocks to the system after some passes and not after others, and mapping them anew can
    take longer than what is measured.

    Returns:
        Whether it does.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))


class _LiveTensors(TorchDispatchMode):
    """Adds up the storages that operations make, until each is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        # Not by finalizers: in older versions of torch one waits for weak references to the storage, too.
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    @property
    def live(self) -> int:
        """Bytes of the storages that are still there."""
        self.made = {key: (ref, size) for key, (ref, size) in self.made.items() if not ref.expired()}
        return sum(size for _, size in self.made.values())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in given:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.made:
            self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
            self.peak = max(self.peak, self.live)


def peak_bytes(task: Callable[[], Any], device: torch.device) -> int:
    """Returns the most memory that tensors made by a call held at a time.

    Args:
        task: The call.
        device: On a GPU the allocator is asked, which counts the kernels' work space too.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveTensors() as tensors:
        task()
    return tensors.peak


def kept_for_backward(task: Callable[[], Any]) -> int:
    """Returns how many bytes made by a call its graph keeps; weights and inputs, which are there anyway, not counted.

    Args:
        task: The call; 0 for one that builds no graph.
    """
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata in tensors.made:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with _LiveTensors() as tensors, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task()
    return sum(sizes.values())


def kept_by_graph(forward: Callable[[], Tensor]) -> int:
    """Returns how many bytes made by a forward pass live as long as its result, in the graph or held by it elsewhere.

    Args:
        forward: The forward pass; its result is not counted.
    """
    with _LiveTensors() as tensors:
        result = forward()
    return tensors.live - result.untyped_storage().nbytes()


def peak_of_process(module: str, *arguments: str) -> float:
    """Returns the peak memory in megabytes of a Python process of its own, which must print it last.

    Args:
        module: The module that it runs.
        *arguments: Its command line.
    """
    command = [sys.executable, "-m", module, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_of_this_process() -> float:
    """Returns the most memory in megabytes that this program has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # The system's own maximum starts from that of the process which started this one.
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) / 1024
    # Bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
