"""What the framework does, in one picture: a zoo on a frozen backbone, and logits that move between models."""

from __future__ import annotations

from typing import Any

from benchmarks.pictures.sheet import arrow, box, path, sheet, text
from vimlight.report.html import Markup

__all__ = ["architecture"]

_LABEL = """Vision Middleware: images pass through a frozen backbone; modules of a zoo are attached to its blocks, gates
weigh them for a task, and a head reads the features. TransMiter: from cached logits of a weak model before and after
fine-tuning an adapter learns what changed; it is moved to a strong model in closed form."""
_MODULES = {"a": "letters", "b": "shapes", "c": "masks", "d": "depth"}
_BLOCKS = (236.0, 356.0, 476.0)


def architecture() -> str:
    """Returns the picture as SVG."""
    return sheet(960, 470, " ".join(_LABEL.split()), _middleware(), _transfer())


def _middleware() -> list[Any]:
    drawn: list[Any] = [
        text(28, 38, "Vision Middleware", "title"),
        text(182, 38, "one frozen backbone, a zoo of modules, gates for each task", "faint"),
        box(28, 82, 76, 76, "plain"),
        [box(x, y, 31, 31, "cold", 3) for x in (33, 68) for y in (87, 122)],
        text(66, 178, "few labels", "small faint", "middle"),
        arrow(108, 120, 150, 120),
        box(154, 62, 476, 116, "plain", 10),
        text(166, 80, "backbone, frozen", "small faint"),
        box(166, 100, 44, 40), text(188, 124, "patch", "small", "middle"), path("M210 120 L236 120"),
    ]  # fmt: skip
    for number, x in enumerate(_BLOCKS, 1):
        drawn += [_block(x, number), path(f"M{x + 92} 120 L{x + 120} 120")]
    drawn += [
        text(600, 124, "…"), arrow(630, 120, 674, 120),
        box(678, 96, 84, 48), text(720, 118, "head", "", "middle"),
        text(720, 135, "closed form", "small faint", "middle"), arrow(762, 120, 806, 120),
        text(814, 117, "one task:", "faint"), text(814, 136, "digits", "strong"), _gates(), _zoo(),
    ]  # fmt: skip
    return drawn


def _block(x: float, number: int) -> list[Markup]:
    drawn = [box(x, 92, 92, 56), text(x + 46, 111, f"block {number}", "small", "middle")]
    return [*drawn, *(box(x + 11 + 18 * place, 121, 14, 18, kind, 3) for place, kind in enumerate(_MODULES))]


def _zoo() -> list[Any]:
    drawn: list[Any] = [text(166, 244, "zoo: a file for each module, with its card", "small faint")]
    for place, (kind, name) in enumerate(_MODULES.items()):
        x = 166 + 88 * place
        drawn += [box(x, 204, 78, 24, "plain", 4), box(x + 6, 209, 10, 14, kind, 2), text(x + 22, 221, name, "small")]
    return [*drawn, arrow(400, 200, 400, 182)]


def _gates() -> list[Any]:
    drawn: list[Any] = [text(548, 244, "gates: how much of each module, learned for the task", "small faint")]
    for place, (kind, share) in enumerate(zip(_MODULES, (26, 16, 5, 9), strict=True)):
        drawn.append(box(560 + 20 * place, 228 - share, 13, share, kind, 2))
    return [*drawn, arrow(595, 196, 595, 182)]


def _transfer() -> list[Any]:
    return [
        path("M28 274 L932 274", "rule"),
        text(28, 308, "TransMiter", "title"),
        text(124, 308, "what fine-tuning changed, moved from logits to logits", "faint"),
        _box(28, 336, 160, "weak model", "its zero-shot logits"),
        _box(28, 400, 160, "weak model, tuned", "its logits"),
        path("M188 362 H208 V426 H188"), arrow(208, 394, 240, 394),
        _box(244, 368, 160, "adapter", "learns the change", mark=True),
        arrow(404, 394, 566, 394), text(485, 384, "moved in closed form", "small", "middle"),
        text(485, 412, "by the same images", "small faint", "middle"),
        _box(570, 336, 160, "strong model", "its zero-shot logits"),
        _box(570, 400, 160, "adapter", "of the strong model", mark=True),
        path("M730 362 H750 V426 H730"), arrow(750, 394, 782, 394),
        text(790, 391, "strong model,"), text(790, 409, "as if fine-tuned", "strong"),
        text(244, 444, "no labels, no gradients through either model", "small faint"),
    ]  # fmt: skip


def _box(x: float, y: float, width: float, name: str, what: str, *, mark: bool = False) -> list[Markup]:
    inset = 30 if mark else 12
    drawn = [
        box(x, y, width, 52),
        text(x + inset, y + 22, name, "strong"),
        text(x + inset, y + 40, what, "small faint"),
    ]
    return [*drawn, box(x + 12, y + 11, 9, 30, "b", 2)] if mark else drawn
