"""The tensors of a TorchScript archive, read without running any of it.

`torch.jit.load` compiles and partly runs the code that an archive brings, and `torch.load(weights_only=True)` refuses
archives. Here their pickle is read by an interpreter that knows tensors and inert objects and nothing else: the code is
looked at as text, to tell parameters and buffers from other attributes, and is never compiled.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_archive", "read_archive"]

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_CLASS = re.compile(
    r"^class (\w+)\(Module\):\s+__parameters__ = \[(.*?)\]\s+__buffers__ = \[(.*?)\]", re.MULTILINE | re.DOTALL
)


def is_archive(path: Path) -> bool:
    """Tells whether a file is an archive of `torch.jit.save`; files of `torch.save` are zip files too."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in file.namelist())


def read_archive(path: Path) -> tuple[dict[str, Tensor], str]:
    """Returns what `torch.jit.load(path).state_dict()` holds, and the text of the archive's code.

    Args:
        path: An archive.

    Returns:
        Parameters and buffers on the CPU by name, in their own types; and the code.

    Raises:
        pickle.UnpicklingError: If the pickle names anything but tensors and the archive's own modules.
        ValueError: If the archive is damaged.
    """
    with zipfile.ZipFile(path) as file:
        root = next(name.partition("/")[0] for name in file.namelist() if name.endswith("/constants.pkl"))
        code = {name: file.read(name).decode() for name in file.namelist() if _is_code(name, root)}
        declared = {
            f"{_module(name, root)}.{found[1]}": re.findall(r'"(.*?)"', found[2] + found[3])
            for name, text in code.items()
            for found in _CLASS.finditer(text)
        }
        try:
            module = _Reader(file, root).load()
            return dict(_tensors(module, declared)), "\n".join(code.values())
        except (KeyError, AttributeError, TypeError, IndexError, RuntimeError, zipfile.BadZipFile) as error:
            raise ValueError(f"its TorchScript cannot be read ({type(error).__name__}: {error})") from error


class _Object:
    """Stands for an object of the archive; keeps its attributes and does nothing."""

    kind = ""
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """Knows tensors, containers and inert objects; nothing that a pickle names is imported or called."""

    def __init__(self, file: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(file.read(f"{root}/data.pkl")))
        self.file, self.folder = file, f"{root}/data"
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return type(name, (_Object,), {"kind": f"{module}.{name}"})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _view,
        }
        if module == "torch.jit._pickle":
            return _first
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"unsupported global {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        if key not in self.storages:
            content = bytearray(self.file.read(f"{self.folder}/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(values: Any, *_: Any) -> Any:
    """Stands for what gives lists and dictionaries their types."""
    return values


def _tensors(module: Any, declared: dict[str, list[str]], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in module.state.items():
        if isinstance(value, Tensor) and name in declared[module.kind]:
            yield prefix + name, value
        elif isinstance(value, _Object) and value.kind in declared:
            yield from _tensors(value, declared, f"{prefix}{name}.")


def _is_code(name: str, root: str) -> bool:
    return name.startswith(f"{root}/code/") and name.endswith(".py")


def _module(name: str, root: str) -> str:
    return name.removeprefix(f"{root}/code/").removesuffix(".py").replace("/", ".")
