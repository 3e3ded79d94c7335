"""Reading a released checkpoint with suspicion: nothing in it is run, and nothing is believed that does not fit."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vimlight.backbone import Preprocessing
from vimlight.errors import BackboneError, CheckpointError, UnknownNameError, nearest, shown, unknown_name
from vimlight.files.tensor_file import PICKLES
from vimlight.interop.modelscope.heads import check_head
from vimlight.interop.modelscope.layout import ALGORITHM, PLACES, UNIT, Checkpoint, Labels, TaskWeights
from vimlight.interop.modelscope.tower import Tower

__all__ = ["read"]

_TASK = re.compile(r"(cls|seg)[^\x00-\x1f\x7f]{0,60}")


def read(path: Path, heads: int | None = None) -> Checkpoint:
    """Reads a released checkpoint.

    Args:
        path: The file, as `torch.save` wrote it.
        heads: Number of attention heads, which the layout does not say; one for every 64 channels if left out.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe, or not of the released layout.
    """
    try:
        return _checkpoint(_load(path), heads)
    except (CheckpointError, UnknownNameError, BackboneError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _load(path: Path) -> Any:
    if path.is_dir():
        raise CheckpointError("is a directory; the released layout is a file, pytorch_model.pt")
    if not path.is_file():
        close = nearest(path.name, (file.name for file in path.parent.glob("*"))) if path.parent.is_dir() else []
        raise CheckpointError("does not exist" + (f"; did you mean {close[0]!r}?" if close else ""))
    if path.suffix == ".safetensors":
        raise CheckpointError("is a .safetensors file; the released layout is a file of torch.save, pytorch_model.pt")
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if not start.startswith(PICKLES):
            raise CheckpointError("is no file of torch.save, which the released layout is")
        with warnings.catch_warnings():
            # What torch has to say of odd files is said by the refusal.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        # A forged pickle can make the unpickler raise anything; it says so itself where a pickle asks for more.
        if "unsupported" in str(error).lower():
            raise CheckpointError(
                "holds more than plain tensors, lists and texts and is not read, since a pickle can run code"
            ) from error
        raise CheckpointError("is truncated or damaged; fetch it again") from error


def _checkpoint(content: Any, heads: int | None) -> Checkpoint:
    root = _mapping(content, "the file")
    meta = _mapping(_item(root, "meta_info"), "meta_info")
    own = _mapping(meta.get("vimlight", {}), "meta_info.vimlight")
    names, labels = _task_list(meta), _mapping(_item(meta, "label_map", "meta_info"), "meta_info.label_map")
    _check_algorithm(_item(meta, "ViM_agg_algo", "meta_info"))
    weights = _tensors(_item(root, "backbone_weights"), "backbone_weights")
    tower = Tower.of(weights, own.get("heads") if heads is None else heads)
    modules = _modules(_item(root, "ViM_weights"), tower)
    gates = _mapping(_item(root, "ViM_agg_weights"), "ViM_agg_weights")
    states = _mapping(_item(root, "head_weights"), "head_weights")
    tasks = {
        name: TaskWeights(
            _gates(_task(gates, name, "ViM_agg_weights"), f"ViM_agg_weights[{shown(name)}]", modules, tower),
            _head(_task(states, name, "head_weights"), name, tower),
            _labels(labels.get(name), name),
        )
        for name in names
    }
    arch = _text(_item(meta, "backbone_arch", "meta_info"), "meta_info.backbone_arch")
    looks = _preprocessing(own, tower.image_size)
    return Checkpoint(arch, tower.tensors, tuple(modules), tasks, tower.odd_heads, looks)


def _check_algorithm(found: Any) -> None:
    if found != ALGORITHM:
        raise unknown_name("aggregation in meta_info.ViM_agg_algo", str(found), [ALGORITHM])


def _task_list(meta: Mapping[Any, Any]) -> list[str]:
    where = "meta_info.task_list"
    names = [_text(name, where) for name in _sequence(_item(meta, "task_list", "meta_info"), where)]
    for name in names:
        if not _TASK.fullmatch(name):
            raise CheckpointError(
                f"task {name[:80]!r}: names begin with 'cls' or 'seg', which picks the head, "
                "and have 63 characters at most"
            )
        if names.count(name) > 1:
            raise CheckpointError(f"task {shown(name)} is listed more than once in meta_info.task_list")
    return names


def _modules(content: Any, tower: Tower) -> list[dict[str, dict[str, Tensor]]]:
    layers = _sequence(content, "ViM_weights")
    if len(layers) != tower.depth:
        raise CheckpointError(f"ViM_weights has {len(layers)} layers, but the backbone has {tower.depth} blocks")
    modules: list[dict[str, dict[str, Tensor]]] = []
    for index, layer in enumerate(layers):
        for role, key in PLACES.items():
            where = f"ViM_weights[{index}]"
            units = _item(_mapping(layer, where), f"{key}_weights", where)
            for number, unit in enumerate(_sequence(units, f"{where}.{key}_weights")):
                while len(modules) <= number:
                    modules.append({})
                modules[number][f"blocks.{index}.{role}"] = _unit(unit, f"{where}.{key}_weights[{number}]", tower.width)
    return modules


def _unit(content: Any, where: str, width: int) -> dict[str, Tensor]:
    tensors = _tensors(content, where)
    _same_names(tensors, UNIT, where)
    down = tensors["adapter_down.weight"]
    hidden = down.shape[0] if down.dim() == 2 else 0
    shapes = [(hidden, width), (hidden,), (hidden, hidden, 3, 3), (hidden,), (width, hidden), (width,)]
    for name, shape in zip(UNIT, shapes, strict=True):
        if tensors[name].shape != shape or hidden == 0:
            expected = f"{shape}" if hidden else f"(h, {width})"
            raise CheckpointError(f"{where}: {shown(name)} is {tuple(tensors[name].shape)}, expected {expected}")
    return {name: tensors[name] for name in UNIT}


def _gates(content: Any, where: str, modules: Sequence[Mapping[str, Any]], tower: Tower) -> dict[str, Tensor]:
    layers = _sequence(content, where)
    if len(layers) != tower.depth:
        raise CheckpointError(f"{where} has {len(layers)} layers, but the backbone has {tower.depth} blocks")
    gates = {}
    for index, layer in enumerate(layers):
        for role, key in PLACES.items():
            name, here = f"{where}[{index}].{key}_agg", f"{where}[{index}]"
            logits = _tensor(_item(_mapping(layer, here), f"{key}_agg", here), name)
            place = f"blocks.{index}.{role}"
            count = sum(place in module for module in modules)
            if logits.shape != (count,):
                raise CheckpointError(f"{name} is {tuple(logits.shape)}, but there are {count} modules")
            if count and not bool((logits < math.inf).all() & (logits > -math.inf).any()):
                raise CheckpointError(f"{name} holds {logits.tolist()[:5]}, of which there is no softmax")
            gates[place] = logits
    return gates


def _head(content: Any, name: str, tower: Tower) -> dict[str, Tensor]:
    tensors = _tensors(content, f"head_weights[{shown(name)}]", counters=True)
    check_head(name, tensors, tower.width, tower.outputs)
    return tensors


def _labels(content: Any, task: str) -> Labels | None:
    if content is None:
        return None
    where = f"meta_info.label_map[{shown(task)}]"
    if isinstance(content, Mapping):
        if not all(isinstance(key, int) for key in content):
            raise CheckpointError(f"{where} must have label numbers as its keys")
        return {int(key): _text(value, where) for key, value in content.items()}
    return [_text(value, where) for value in _sequence(content, where)]


def _preprocessing(own: Mapping[Any, Any], size: int) -> Preprocessing | None:
    """Returns what this package noted of the images where the layout has no place for it."""
    where = "meta_info.vimlight.preprocessing"
    if "preprocessing" not in own:
        return None
    noted = _mapping(own["preprocessing"], where)
    mean, std, crop = (_item(noted, key, where) for key in ("mean", "std", "crop_pct"))
    numbers = [*_sequence(mean, where), *_sequence(std, where), crop]
    if len(mean) != 3 or len(std) != 3 or not all(isinstance(number, float) for number in numbers):
        raise CheckpointError(f"{where} must hold three numbers as mean and three as std")
    way = _text(_item(noted, "interpolation", where), where)
    # Files from before crop modes were known have none.
    crop_mode = _text(noted.get("crop_mode", "center"), where)
    return Preprocessing((size, size), tuple(mean), tuple(std), way, crop, crop_mode)


def _task(content: Mapping[Any, Any], name: str, where: str) -> Any:
    if name not in content:
        raise CheckpointError(f"task {shown(name)} is listed in meta_info.task_list, but {where} does not have it")
    return content[name]


def _item(content: Mapping[Any, Any], key: str, where: str = "the file") -> Any:
    if key not in content:
        close = nearest(key, [name for name in content if isinstance(name, str)], 1)
        hint = f"; nearest is {close[0]!r}" if close else ""
        raise CheckpointError(f"{where} lacks {shown(key)}, which the released layout has{hint}")
    return content[key]


def _mapping(content: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{where} must be a dictionary, not {type(content).__name__}")
    return content


def _sequence(content: Any, where: str) -> Sequence[Any]:
    if not isinstance(content, (list, tuple)):
        raise CheckpointError(f"{where} must be a list, not {type(content).__name__}")
    return content


def _text(content: Any, where: str) -> str:
    if not isinstance(content, str):
        raise CheckpointError(f"{where} must hold texts, not {type(content).__name__}")
    return content


def _tensors(content: Any, where: str, *, counters: bool = False) -> dict[str, Tensor]:
    return {
        _text(name, where): _tensor(value, f"{where}: {shown(name)}", counters=counters)
        for name, value in _mapping(content, where).items()
    }


def _tensor(content: Any, where: str, *, counters: bool = False) -> Tensor:
    if not isinstance(content, Tensor):
        raise CheckpointError(f"{where} must be a tensor, not {type(content).__name__}")
    plain = content.layout is torch.strided and content.device.type == "cpu"
    if not plain or not (content.is_floating_point() or (counters and content.dtype == torch.int64)):
        raise CheckpointError(f"{where} must hold plain floating-point numbers, not {content.dtype}")
    # Of its own memory: what is a view here must not be written as a view.
    return content.detach().clone(memory_format=torch.contiguous_format)


def _same_names(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(f"{where} lacks {shown(missing[0])}")
    extra = [name for name in found if name not in expected]
    if extra:
        raise CheckpointError(f"{where} has {shown(extra[0])}, which the released layout does not")
