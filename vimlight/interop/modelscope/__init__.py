"""The released checkpoint of Vision Middleware, as ModelScope has it: read, run, taken apart into a zoo, and written.

The layout is a `pytorch_model.pt` with a CLIP image tower, a list of modules, and gates and head for each task. All
sizes are read off the weights. What stands nowhere is the number of attention heads: CLIP's rule, one for every 64
channels, is followed unless `heads` says otherwise.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch

from vimlight.errors import ConfigError
from vimlight.files.atomic import refuse_existing, write_whole
from vimlight.interop.base import Fact, Format
from vimlight.interop.modelscope.folder import add_task, backbone_of, read_zoo, write_zoo
from vimlight.interop.modelscope.layout import Checkpoint, pack
from vimlight.interop.modelscope.model import ReleasedViM, model_of
from vimlight.interop.modelscope.reading import read
from vimlight.interop.modelscope.tower import Tower
from vimlight.interop.registry import FORMATS

__all__ = ["ModelScope", "ReleasedViM", "add_task", "backbone_of", "export_zoo", "import_zoo", "load", "save"]


def load(path: str | Path, heads: int | None = None) -> ReleasedViM:
    """Loads a released checkpoint, or a zoo with its backbone and tasks, as a model.

    Args:
        path: A `pytorch_model.pt` of the released layout, or the directory of a zoo that one was imported to.
        heads: Number of attention heads; one for every 64 channels if left out.

    Returns:
        The model, in float32 and eval mode: `model(images, task="seg-voc")` gives logits.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or not of the layout, or names an unknown aggregation.
        ZooError: If the zoo keeps no backbone.
    """
    path = Path(path).expanduser()
    return model_of(read_zoo(path) if path.is_dir() else read(path, heads))


def save(model: ReleasedViM, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a model, with what was learnt since it was loaded, in the released layout.

    Args:
        model: The model.
        path: The new file.
        overwrite: Whether a file of that name may be replaced.

    Returns:
        The path.

    Raises:
        CheckpointError: If the model holds what the layout cannot.
        ConfigError: If the file exists.
    """
    return _write(model.to_checkpoint(), Path(path).expanduser(), overwrite)


def import_zoo(path: str | Path, out: str | Path, heads: int | None = None) -> Checkpoint:
    """Takes a released checkpoint apart into a new zoo: modules with cards, backbone, and tasks.

    Args:
        path: A `pytorch_model.pt` of the released layout.
        out: Directory of the new zoo.
        heads: Number of attention heads; one for every 64 channels if left out.

    Returns:
        What was read.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or not of the layout.
        ZooError: If `out` exists.
    """
    path = Path(path).expanduser()
    checkpoint = read(path, heads)
    write_zoo(checkpoint, Path(out).expanduser(), path.name)
    return checkpoint


def export_zoo(zoo: str | Path, to: str | Path, names: Sequence[str] = ()) -> Checkpoint:
    """Writes a zoo, its backbone and its tasks in the released layout; imported tensors come out as they were.

    Args:
        zoo: Directory of the zoo.
        to: The new file.
        names: Which modules; all if left out.

    Returns:
        What was written.

    Raises:
        CheckpointError: If the zoo holds what the layout cannot.
        ZooError: If a file is missing or damaged.
        ConfigError: If the file exists.
    """
    target = Path(to).expanduser()
    refuse_existing(target, overwrite=False, way="")
    checkpoint = read_zoo(Path(zoo).expanduser(), names)
    _write(checkpoint, target, overwrite=False)
    return checkpoint


@FORMATS.register("modelscope")
class ModelScope(Format):
    """The released layout for `vimlight zoo import` and `vimlight zoo export`."""

    suffix = ".pt"
    text = "the released ViM checkpoint, pytorch_model.pt"

    def import_zoo(self, path: Path, out: Path, heads: int | None = None) -> list[Fact]:
        """Reads a released checkpoint into a new zoo; see `Format.import_zoo`."""
        return _facts(import_zoo(path, out, heads), out / "backbone", out, out / "tasks")

    def export_zoo(self, zoo: Path, names: Sequence[str], to: Path) -> list[Fact]:
        """Writes a zoo in the released layout; see `Format.export_zoo`."""
        return _facts(export_zoo(zoo, to, names), to, to, to)


def _write(checkpoint: Checkpoint, path: Path, overwrite: bool) -> Path:
    if path.suffix != ModelScope.suffix:
        raise ConfigError(f"{path.name!r}: the released layout is a {ModelScope.suffix} file, such as pytorch_model.pt")
    content = io.BytesIO()
    torch.save(pack(checkpoint, Tower.of(checkpoint.backbone, checkpoint.heads).depth), content)
    return write_whole(path, content.getvalue(), overwrite=overwrite)


def _facts(checkpoint: Checkpoint, backbone: Path, modules: Path, tasks: Path) -> list[Fact]:
    tower = Tower.of(checkpoint.backbone, checkpoint.heads)
    size = (
        f"width {tower.width}, blocks {tower.depth}, heads {tower.heads}, patch {tower.patch}, image {tower.image_size}"
    )
    hidden = sorted({len(unit["adapter_down.bias"]) for module in checkpoint.modules for unit in module.values()})
    zoo = f"modules {len(checkpoint.modules)}, hidden units {', '.join(map(str, hidden)) or 'none'}"
    facts = [Fact("backbone", size, backbone), Fact("zoo", zoo, modules)]
    for name, task in checkpoint.tasks.items():
        last = task.head["classifier.bias" if name.startswith("cls") else "fpn_head.conv_seg.bias"]
        facts.append(Fact(f"task {name}", f"classes {len(last)}", tasks))
    return facts
