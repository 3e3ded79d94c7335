"""A zoo with its backbone and its tasks beside the modules: what a released checkpoint becomes, and is made of.

* `ZOO/NAME.safetensors`: a module and its card, as in every zoo;
* `ZOO/backbone/backbone.safetensors`: the tower under timm's names; its card says how to create it;
* `ZOO/backbone/config.yaml`: the same for `vimlight fit --config`;
* `ZOO/tasks/TASK.safetensors`: gates and head of a task; its card says which modules the gates are of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
import yaml
from torch import Tensor, nn

from vimlight.aggregation import Aggregate
from vimlight.backbone import Backbone, create_backbone
from vimlight.errors import CheckpointError, FingerprintError, ZooError, shown
from vimlight.files.atomic import publish_directory, temporary_directory, write_whole
from vimlight.files.checksums import crc32_of
from vimlight.files.json_text import check_version, json_object
from vimlight.files.tensor_file import card_text, opened, pack, tensors_of
from vimlight.interop.modelscope.heads import check_head, head_tensors
from vimlight.interop.modelscope.layout import Checkpoint, Labels, TaskWeights, places
from vimlight.interop.modelscope.model import gates_of, module_names
from vimlight.interop.modelscope.tower import Tower, clip_names, default_preprocessing, tower_of
from vimlight.interop.modelscope.units import module_tensors, origin_of, plugin_of
from vimlight.plugins import Plugin
from vimlight.zoo import Zoo
from vimlight.zoo.files import plain

__all__ = ["add_task", "backbone_of", "read_zoo", "write_zoo"]

# Of the cards of backbones and tasks.
_VERSION = 1
_BACKBONE, _CONFIG, _TASKS = Path("backbone", "backbone.safetensors"), Path("backbone", "config.yaml"), Path("tasks")
_EXTRA, _SUM = "modelscope", "crc32"


def write_zoo(checkpoint: Checkpoint, out: Path, source: str) -> None:
    """Writes a checkpoint as a new zoo, which appears whole or not at all.

    Args:
        checkpoint: The checkpoint.
        out: Directory of the zoo.
        source: Name of the file that it was read from, for the modules' cards.

    Raises:
        ZooError: If something is there already or it cannot be written.
    """
    if out.exists():
        raise ZooError(f"{str(out)!r} exists; an import makes a new zoo, so choose another directory for --out")
    tower = Tower.of(checkpoint.backbone, checkpoint.heads)
    backbone = tower.build(checkpoint.preprocessing)
    names = module_names(len(checkpoint.modules))
    try:
        with temporary_directory(out) as copy:
            _write_backbone(copy, out, tower.timm_tensors(), tower.arguments(checkpoint.preprocessing), checkpoint.arch)
            zoo = Zoo(copy)
            for name, module in zip(names, checkpoint.modules, strict=True):
                zoo.add(name, plugin_of(module, backbone), _card(name, names, module, source))
            for number, (task, weights) in enumerate(checkpoint.tasks.items()):
                _write_task(copy, task, weights, names, checkpoint.modules, number)
            publish_directory(copy, out, overwrite=False)
    except OSError as error:
        raise ZooError(f"zoo {str(out)!r} cannot be written: {error.strerror or error}") from error


def read_zoo(path: Path, names: Sequence[str] = ()) -> Checkpoint:
    """Reads a zoo with its backbone and its tasks as a checkpoint.

    Args:
        path: Directory of the zoo.
        names: Which modules; all if left out.

    Raises:
        ZooError: If a file is missing or damaged.
        CheckpointError: If the zoo holds what the released layout cannot.
    """
    backbone, card, tensors = _read_backbone(path)
    tower = Tower.of(clip_names(tensors), card["arguments"]["num_heads"])
    zoo = Zoo(path)
    origins = {name: zoo.card(name).extra.get(_EXTRA, {}) for name in list(names) or zoo.names()}
    # Modules keep their numbers, and those that came later follow.
    order = origins if names else sorted(origins, key=lambda name: origins[name].get("position", len(origins)))
    plugins = {name: zoo.load(name, backbone) for name in order}
    looks = backbone.preprocessing
    return Checkpoint(
        card["arch"],
        tower.tensors,
        tuple(module_tensors(name, plugin, tower.depth, origins[name]) for name, plugin in plugins.items()),
        _read_tasks(path, plugins, tower),
        tower.odd_heads,
        None if looks == default_preprocessing(tower.image_size) else looks,
    )


def backbone_of(path: str | Path) -> Backbone:
    """Creates the backbone that lies beside the modules of a zoo.

    Args:
        path: Directory of the zoo.

    Raises:
        ZooError: If there is none or its file is damaged.
    """
    return _read_backbone(Path(path))[0]


def add_task(
    zoo: str | Path,
    name: str,
    aggregator: Aggregate,
    head: nn.Module | Mapping[str, Tensor],
    labels: Labels | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Keeps a task beside the modules of a zoo, and the backbone too if it is not there yet.

    Args:
        zoo: Directory of the zoo.
        name: The task's name, which begins with `cls` or `seg`.
        aggregator: Its `ens_moe`, with strength `"one"`, over modules of the zoo.
        head: For `cls` a linear layer or an affine head on the backbone's last feature; for `seg` a `SemanticFPN`.
        labels: Names of its classes.
        overwrite: Whether a task of that name may be replaced.

    Raises:
        CheckpointError: If the released layout cannot hold the task.
        ZooError: If a module is not in the zoo.
        FingerprintError: If the zoo keeps another backbone.
    """
    folder, modules = Zoo(zoo), list(aggregator.names)
    tower = tower_of(aggregator.backbone)
    if not name.startswith(("cls", "seg")) or aggregator.readout != "last":
        raise CheckpointError(
            f"task {name!r}: the name begins with 'cls' or 'seg', and 'last' is read, not {aggregator.readout!r}"
        )
    plugins = {module: folder.load(module, aggregator.backbone) for module in modules}
    tensors = head_tensors(name, head)
    check_head(name, tensors, tower.width, tower.outputs)
    weights = TaskWeights(gates_of(name, aggregator, plugins, tower.depth), tensors, labels)
    if (folder.path / _BACKBONE).exists():
        kept = backbone_of(folder.path)
        if kept.fingerprint != aggregator.backbone.fingerprint:
            raise FingerprintError(
                f"zoo {str(folder.path)!r} keeps the backbone with fingerprint {kept.fingerprint[:12]}, "
                f"but task {name!r} was trained on {aggregator.backbone.fingerprint[:12]}"
            )
    else:
        state = plain(aggregator.backbone.model.state_dict())
        arguments = tower.arguments(aggregator.backbone.preprocessing, projected="head.weight" in state)
        _write_backbone(folder.path, folder.path, state, arguments, tower.arch)
    present = [set(plugin.site_names) for plugin in plugins.values()]
    count = len(_task_files(folder.path))
    _write_task(folder.path, name, weights, modules, present, count, overwrite=overwrite)


def _write_backbone(
    folder: Path, final: Path, tensors: dict[str, Tensor], arguments: dict[str, Any], arch: str
) -> None:
    about = {"format_version": _VERSION, "arguments": arguments, "arch": arch, _SUM: crc32_of(tensors)}
    write_whole(folder / _BACKBONE, pack(json.dumps(about), tensors))
    config = {"model": {"init_args": {"backbone": {**arguments, "checkpoint": str(final / _BACKBONE)}}}}
    write_whole(folder / _CONFIG, yaml.safe_dump(config, sort_keys=False), overwrite=True)


def _read_backbone(path: Path) -> tuple[Backbone, dict[str, Any], dict[str, Tensor]]:
    file = path / _BACKBONE
    if not path.is_dir():
        raise ZooError(f"zoo {str(path)!r} does not exist")
    if not file.is_file():
        raise ZooError(
            f"zoo {str(path)!r} keeps no backbone ({_BACKBONE}); it comes with an import, "
            "or with modelscope.add_task(zoo, name, aggregator, head)"
        )
    card, tensors = _read_file(file)
    try:
        with torch.random.fork_rng(devices=[]):
            return create_backbone(**card["arguments"], checkpoint=str(file)), {"arch": "", **card}, tensors
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{file.name} does not say how the backbone is created; import the checkpoint again") from error


def _read_file(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the card and the tensors of a file, after a look at their checksum; earlier versions wrote none.

    Raises:
        ZooError: If it is damaged.
    """
    with opened(file, "a zoo", ZooError) as content:
        text = card_text(content, file, ZooError)
        tensors = tensors_of(content)
    card = _stated(text, file)
    if card.get(_SUM) not in (None, crc32_of(tensors)):
        raise ZooError(f"{file.name}: the tensors were altered after they were saved (their checksum differs)")
    return card, tensors


def _write_task(
    folder: Path,
    name: str,
    task: TaskWeights,
    modules: Sequence[str],
    present: Sequence[Any],
    position: int,
    *,
    overwrite: bool = False,
) -> None:
    by_place = {
        place: [module for module, here in zip(modules, present, strict=True) if place in here] for place in task.gates
    }
    numbered = isinstance(task.labels, dict)
    labels = list(task.labels.items()) if isinstance(task.labels, dict) else task.labels
    card = {
        "format_version": _VERSION, "task": name, "position": position, "modules": by_place, "labels": labels,
        "numbered": numbered,
    }  # fmt: skip
    tensors = {f"gates.{place}": vector for place, vector in task.gates.items()}
    tensors |= {f"head.{key}": tensor for key, tensor in task.head.items()}
    card[_SUM] = crc32_of(tensors)
    write_whole(_task_file(folder, name), pack(json.dumps(card), tensors), overwrite=overwrite)


def _read_tasks(folder: Path, modules: Mapping[str, Plugin], tower: Tower) -> dict[str, TaskWeights]:
    found = [_read_task(file, modules, tower) for file in _task_files(folder)]
    return {name: weights for _, name, weights in sorted(found, key=lambda task: task[:2])}


def _read_task(file: Path, modules: Mapping[str, Plugin], tower: Tower) -> tuple[int, str, TaskWeights]:
    card, tensors = _read_file(file)
    try:
        position, name, owners, labels = (card[key] for key in ("position", "task", "modules", "labels"))
        if card["numbered"]:
            labels = {int(key): value for key, value in labels}
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{file.name} is no task of a zoo") from error
    head = {key.removeprefix("head."): value for key, value in tensors.items() if key.startswith("head.")}
    check_head(name, head, tower.width, tower.outputs)
    gates = {
        place: _spread(name, place, owners.get(place, []), tensors.get(f"gates.{place}"), modules)
        for place in places(tower.depth)
    }
    return position, name, TaskWeights(gates, head, labels)


def _stated(text: str | None, file: Path) -> dict[str, Any]:
    """Reads the card of a backbone or a task; the first ones do not say their version."""
    card = json_object(text or "{}", file.name, ZooError)
    check_version(card, _VERSION, ZooError, what=file.name, unstated=1)
    return card


def _spread(
    task: str, place: str, owners: Sequence[str], logits: Tensor | None, modules: Mapping[str, Plugin]
) -> Tensor:
    """Returns a task's logits for the modules at a place now: minus infinity for those that it does not know."""
    for owner in owners:
        if owner not in modules:
            raise CheckpointError(
                f"task {shown(task)} uses module {shown(owner)}, which is not among those that are written"
            )
    present = [name for name, plugin in modules.items() if place in plugin.site_names]
    if logits is None or len(logits) != len(owners) or not set(owners) <= set(present):
        raise ZooError(f"task {shown(task)} has no gates for the modules at {shown(place)}; import or add it again")
    if present and not owners:
        raise CheckpointError(
            f"task {shown(task)} uses no module at {shown(place)}, where {shown(present[0])} is; its gates would not "
            "sum to 1"
        )
    never = logits.new_tensor(float("-inf"))
    known = dict(zip(owners, logits, strict=True))
    return torch.stack([known.get(name, never) for name in present]) if present else logits


def _task_file(folder: Path, name: str) -> Path:
    return folder / _TASKS / f"{quote(name, safe='')}.safetensors"


def _task_files(folder: Path) -> list[Path]:
    return sorted((folder / _TASKS).glob("[!.]*.safetensors"))


def _card(name: str, names: Sequence[str], module: Mapping[str, Any], source: str) -> dict[str, Any]:
    number = names.index(name)
    return {
        "text": f"module {number + 1} of {len(names)} in {source}; the released layout says no more of it",
        "extra": {_EXTRA: {"position": number, **origin_of(module)}},
    }
