"""Any labelled data set of `torchvision.datasets`, by the name of its class."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vimlight.data.pictures import open_picture
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import ItemTable, Table, TensorTable
from vimlight.errors import ConfigError, DataError, unknown_name

__all__ = ["torchvision"]

SPLIT_NAMES = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
TARGET_ATTRIBUTES = ("targets", "labels", "_labels", "y", "attr")


@SOURCES.register("torchvision")
def torchvision(
    name: str, root: str | None = None, download: bool = False, arguments: dict[str, Any] | None = None
) -> Source:
    """Opens a data set of torchvision; its `train` or `split` argument is filled in for each part.

    Files are opened as those of other sources are, where the class lets its caller do so; the few that open them
    themselves lose what is transparent. A validation or test part whose labels are not published is left out with a
    warning: its images then come from the training part.

    Args:
        name: Class in `torchvision.datasets`, such as `"CIFAR10"`.
        root: Folder that holds the data, or that they are downloaded to.
        download: Whether to download what is missing.
        arguments: Further arguments of the class.

    Raises:
        UnknownNameError: If torchvision has no such data set.
        DataError: If the data are missing, or their targets are no class labels.
    """
    factory = _factory(name)
    known = inspect.signature(factory).parameters
    given: dict[str, Any] = dict(arguments or {})
    if "root" in known:
        given["root"] = _root(name, root)
    if "download" in known:
        given["download"] = download
    if _takes_loader(factory, known):
        given.setdefault("loader", open_picture)
    tables: dict[str, Table] = {}
    names: tuple[str, ...] = ()
    for split, options in _split_options(known, given).items():
        part = _open(name, factory, given, options)
        if part is None:
            continue
        values = _values(part)
        if split != "train" and len(values) and all(value is None for value in values):
            warnings.warn(f"torchvision's {name} has no labels in its {split} part, which is left out", stacklevel=2)
            continue
        tables[split] = _table(part, _targets(name, part, values), f"{name}/{split}")
        names = names or _names(part)
    if "train" not in tables:
        raise DataError(f"torchvision's {name} has no training part; give its own option in dataset_args: arguments")
    kind = "multilabel" if tables["train"].targets.ndim == 2 else "classification"
    return Source(name, kind, names or _numbers(table.targets for table in tables.values()), **tables)


def _factory(name: str) -> Any:
    from torchvision import datasets

    names = [entry for entry in datasets.__all__ if inspect.isclass(getattr(datasets, entry))]
    if name not in names:
        raise unknown_name("torchvision data set", name, names)
    return getattr(datasets, name)


def _takes_loader(factory: Any, known: Mapping[str, inspect.Parameter]) -> bool:
    """Tells whether a class takes a function that opens files, itself or by handing arguments on."""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return any("loader" in inspect.signature(base).parameters for base in factory.__mro__[1:-1])
    return "loader" in known


def _root(name: str, root: str | None) -> Path:
    if root is None:
        raise ConfigError(f"torchvision's {name} needs the folder of its data: dataset_args: {{root: ...}}")
    return Path(root).expanduser()


def _split_options(known: Any, given: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Lists, for each part, the arguments that may select it."""
    if "train" in known and "train" not in given:
        return {"train": [{"train": True}], "test": [{"train": False}]}
    if "split" in known and "split" not in given:
        return {part: [{"split": name} for name in names] for part, names in SPLIT_NAMES.items()}
    return {"train": [{}]}


def _open(name: str, factory: Any, given: dict[str, Any], options: list[dict[str, Any]]) -> Any:
    """Opens the first of the options that the class knows, or none."""
    from filelock import FileLock

    lock = given["root"] / f".{name}.lock" if given.get("download") else None
    if lock:
        lock.parent.mkdir(parents=True, exist_ok=True)
    for option in options:
        try:
            # Processes that start together must not download over one another.
            with FileLock(lock) if lock else nullcontext():
                return factory(**given, **option)
        except TypeError as error:
            raise ConfigError(f"torchvision's {name}: {error}") from error
        except (OSError, RuntimeError) as error:
            hint = "" if given.get("download") else "; set download: true where the network may be used"
            raise DataError(f"torchvision's {name} in {given.get('root')}: {error}{hint}") from error
        except ValueError as error:
            if "Unknown value" not in str(error):
                raise DataError(f"torchvision's {name}: {error}") from error
    return None


def _values(part: Any) -> Any:
    """Returns all targets of a part as its class has them."""
    values = next((getattr(part, key) for key in TARGET_ATTRIBUTES if hasattr(part, key)), None)
    if values is None and hasattr(part, "_samples"):
        values = [sample[1] for sample in part._samples]
    # A class that keeps its targets to itself has them read once.
    return [part[index][1] for index in range(len(part))] if values is None else values


def _targets(name: str, part: Any, values: Any) -> Tensor:
    try:
        numbers = torch.as_tensor(np.asarray(values))
        targets = numbers.long()
    except (TypeError, ValueError) as error:
        raise DataError(f"the targets of torchvision's {name} are no class labels") from error
    if not torch.equal(numbers, targets.to(numbers.dtype)):
        raise DataError(f"the targets of torchvision's {name} are no class labels, but numbers with fractions")
    several = targets.ndim == 2 and targets.unique().tolist() in ([0], [1], [0, 1])
    if len(targets) != len(part) or not (targets.ndim == 1 or several):
        raise DataError(f"the targets of torchvision's {name} are no class labels, but {tuple(targets.shape)} numbers")
    return targets


def _table(part: Any, targets: Tensor, name: str) -> Table:
    pixels = getattr(part, "data", None)
    if not isinstance(pixels, np.ndarray | Tensor) or len(pixels) != len(part):
        return ItemTable(part, itemgetter(0), targets, name)
    images = torch.as_tensor(pixels)
    channels_last = images.ndim == 4 and images.shape[-1] in (1, 3) and images.shape[1] not in (1, 3)
    return TensorTable(images.permute(0, 3, 1, 2) if channels_last else images, targets, name)


def _names(part: Any) -> tuple[str, ...]:
    names = list(getattr(part, "attr_names", None) or getattr(part, "classes", None) or ())
    while names and not names[-1]:
        names.pop()  # CelebA's list ends with an empty name
    # ImageNet gives the synonyms of a class as a tuple.
    return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)


def _numbers(targets: Iterable[Tensor]) -> tuple[str, ...]:
    """Returns names for classes that have none: their numbers in all parts."""
    count = max(part.shape[1] if part.ndim == 2 else int(part.max()) + 1 for part in targets)
    return tuple(map(str, range(count)))
