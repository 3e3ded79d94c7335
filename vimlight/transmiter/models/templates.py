"""Class names as text features: prompts by template, averaged and normalised again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vimlight.data.coop_files import DATASETS
from vimlight.data.listings import read_lines
from vimlight.errors import ConfigError, shown, unknown_name
from vimlight.progress import track
from vimlight.transmiter.models.image_text import ImageTextModel
from vimlight.transmiter.models.texts import check_names, prompts_of

__all__ = ["TEMPLATE_SETS", "class_features", "templates_of"]

_OF_OPEN_CLIP = ("openai", "simple")
_OF_COOP = {f"coop/{name}": dataset.prompt for name, dataset in DATASETS.items()}
TEMPLATE_SETS = (*_OF_OPEN_CLIP, *_OF_COOP)


def templates_of(templates: str | Sequence[str]) -> list[str]:
    """Returns prompts with `{}` for the class name.

    Args:
        templates: One template, several, a text file of one a line such as CLIP_benchmark's
            `zeroshot_classification_templates.txt`, or the name of a set: `"openai"` (80 prompts) and `"simple"` (7 of
            them) ship with open_clip, and `"coop/oxford_pets"` is the one that CoOp uses for that data set.

    Raises:
        UnknownNameError: If there is no such set.
        ConfigError: If a template lacks its `{}`, or in a file `{c}`.
        DataError: If there is no such file.
    """
    if isinstance(templates, str) and "{}" not in templates:
        found = _named(templates)
    else:
        found = [templates] if isinstance(templates, str) else list(templates)
    for template in found or [""]:
        if template.count("{}") != 1:
            raise ConfigError(f"template {shown(template)} must have {{}} once, where the class name goes")
    return found


def _named(name: str) -> list[str]:
    if name.endswith(".txt"):
        return [line.replace("{c}", "{}") for line in read_lines(Path(name).expanduser())]
    if name in _OF_COOP:
        return [_OF_COOP[name]]
    if name not in TEMPLATE_SETS:
        raise unknown_name("set of templates", name, TEMPLATE_SETS)
    import open_clip

    return [make("{}") for make in getattr(open_clip, f"{name.upper()}_IMAGENET_TEMPLATES")]


def class_features(
    model: ImageTextModel,
    names: Sequence[str],
    templates: Sequence[str],
    *,
    batch_size: int = 512,
    progress: bool = False,
    check: bool = True,
) -> Tensor:
    """Encodes class names: every prompt normalised, averaged over the templates, normalised.

    Args:
        model: The model.
        names: M class names; underscores stand for spaces.
        templates: Prompts with `{}`.
        batch_size: Prompts at a time.
        progress: Whether to show a progress bar.
        check: Whether names that the model cannot tell apart are refused, with a warning of prompts that it cuts.

    Returns:
        `(M, E)` float32 on the CPU.

    Raises:
        ConfigError: If the model cannot tell two names apart.
    """
    if check:
        check_names(model, (names, templates))
    per_batch = max(1, batch_size // len(templates))
    starts = range(0, len(names), per_batch)
    parts = []
    for start in track(starts, "class names", progress):
        some = names[start : start + per_batch]
        texts = prompts_of(some, templates)
        features = torch.cat(
            [model.encode_text(texts[at : at + batch_size]) for at in range(0, len(texts), batch_size)]
        )
        parts.append(F.normalize(features.view(len(some), len(templates), -1).mean(dim=1), dim=1).cpu())
    return torch.cat(parts)
