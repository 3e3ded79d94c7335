"""Class names as text features: prompts by template, averaged and normalised again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vimlight.errors import ConfigError, unknown_name
from vimlight.progress import track
from vimlight.transmiter.models import ImageTextModel
from vimlight.transmiter.texts import check_names, prompts_of

__all__ = ["TEMPLATE_SETS", "class_features", "templates_of"]

TEMPLATE_SETS = ("openai", "simple")


def templates_of(templates: str | Sequence[str]) -> list[str]:
    """Returns prompts with `{}` for the class name.

    Args:
        templates: One template, several, or the name of a set that ships with open_clip: `"openai"` (80 prompts) or
            `"simple"` (7 of them).

    Raises:
        UnknownNameError: If there is no such set.
        ConfigError: If a template lacks its `{}`.
    """
    if isinstance(templates, str) and "{}" not in templates:
        if templates not in TEMPLATE_SETS:
            raise unknown_name("set of templates", templates, TEMPLATE_SETS)
        import open_clip

        return [make("{}") for make in getattr(open_clip, f"{templates.upper()}_IMAGENET_TEMPLATES")]
    found = [templates] if isinstance(templates, str) else list(templates)
    for template in found or [""]:
        if template.count("{}") != 1:
            raise ConfigError(f"template {template!r} must have {{}} once, where the class name goes")
    return found


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
