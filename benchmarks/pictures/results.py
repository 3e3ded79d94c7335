"""What the zoo and the transfers are worth on real images, drawn from the tables of the results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.pictures.sheet import sheet, text
from vimlight.report.figures.canvas import Scale
from vimlight.report.html import Markup, element

__all__ = ["cells", "results", "table_behind"]

_ROOT = Path(__file__).parents[2]
_CELLS = _ROOT / "benchmarks" / "real" / "RESULTS.md"
_TRANSFERS = _ROOT / "docs" / "results" / "transfer.md"
_LABEL = "Gains of a zoo over the bare backbone on ten real tasks, and harmonic means of transfers on eight data sets"
_BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
_METHODS = {
    "random": "random modules",
    "shuffled": "modules of shuffled labels",
    "uniform": "equal gates",
    "best_single": "best single module",
    "ens_moe": "ViM: gates",
    "select": "ViM: select",
    "k_streams": "K streams",
    "module_alone": "module tuned on the task",
    "lora_alone": "LoRA tuned on the task",
}
_STRONG = ("ens_moe", "select", "safe", "TransMiter")
_TOP, _ROW = 112.0, 27.0


class _Gain(NamedTuple):
    mean: float
    interval: float


def results() -> str:
    """Returns the picture as SVG."""
    height = int(_TOP + _ROW * len(_METHODS) + 36)
    return sheet(960, height, _LABEL, _zoo(), _transfers())


def table_behind(page: str, heading: str) -> list[dict[str, str]]:
    """Returns the first table behind a heading, a mapping from columns to cells for each row.

    Args:
        page: A text in Markdown.
        heading: Its line.
    """
    lines = iter(page.split(f"{heading}\n", 1)[1].splitlines())
    rows = list(_rows(lines))
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    started = False
    for line in lines:
        if line.startswith("|"):
            started = True
            yield cells(line)
        elif started:
            return


def cells(line: str) -> list[str]:
    """Returns the cells of a row in Markdown, without marks."""
    return [cell.strip(" *`") for cell in line.strip().strip("|").split("|")]


def _gains(backbone: str, shots: int) -> dict[str, _Gain]:
    rows = table_behind(_CELLS.read_text(), f"### {backbone}, {shots}-shot")
    found = {row["method"]: re.fullmatch(r"([+-][\d.]+) ± ([\d.]+)", row["difference to none"]) for row in rows}
    return {method: _Gain(float(each[1]), float(each[2])) for method, each in found.items() if each}


def _zoo() -> list[Any]:
    drawn: list[Any] = [
        text(28, 38, "A zoo on ten real tasks", "title"),
        text(28, 60, "points over the bare backbone, with 95 % intervals", "faint"),
        _dot(32, 84, "a", full=True), text(42, 88, "5 labels a class", "small"),
        _dot(162, 84, "b", full=False), text(172, 88, "20", "small"),
    ]  # fmt: skip
    for row, (method, name) in enumerate(_METHODS.items()):
        kind = "strong" if method in _STRONG else ""
        drawn.append(text(204, _TOP + _ROW * (row + 0.5) + 5, name, kind, "end"))
    for number, backbone in enumerate(_BACKBONES):
        left = 220 + 204 * number
        scale = Scale(-2, 5, left, left + 188)
        drawn += [text(left + 94, 88, backbone, "small faint", "middle"), _axis(scale, (-2, 0, 2, 4))]
        for shots, kind, lift in ((5, "a", -5), (20, "b", 5)):
            gains = _gains(backbone, shots)
            drawn += [
                _bar(scale, _TOP + _ROW * (row + 0.5) + lift, gains[method], kind, full=shots == 5)
                for row, method in enumerate(_METHODS)
                if method in gains
            ]
    return drawn


def _transfers() -> list[Any]:
    rows = table_behind(_TRANSFERS.read_text(), "## Eight data sets")
    shown = [row for row in rows if row["method"].partition(" (")[0] in _TRANSFERRED]
    left, step = 818.0, _ROW * len(_METHODS) / len(shown)
    scale = Scale(40, 55, left, left + 96)
    drawn: list[Any] = [
        text(652, 38, "Transfers on eight data sets", "title"),
        text(652, 60, "harmonic mean of base and novel classes, %", "faint"),
        _axis(scale, (40, 45, 50)),
    ]
    for number, row in enumerate(shown):
        y = _TOP + step * (number + 0.5)
        strong = row["method"] in _STRONG
        value = float(row["harmonic"])
        drawn += [
            text(left - 16, y + 5, row["method"], "strong" if strong else "", "end"),
            _dot(scale(value), y, "a" if strong else "plain", full=True),
            text(scale(value) + 10, y + 4, row["harmonic"], "small"),
        ]
    return drawn


_TRANSFERRED = (
    "source fine-tuned", "target zero-shot", "EFT", "logit ensemble", "gap ridge", "gap ridge on features",
    "Tip-Adapter", "TransMiter", "safe",
)  # fmt: skip


def _axis(scale: Scale, values: tuple[float, ...]) -> list[Markup]:
    bottom = _TOP + _ROW * len(_METHODS)
    drawn = []
    for value in values:
        x = scale(value)
        kind = "zero" if value == 0 else "rule"
        drawn += [
            element("line", class_=kind, x1=x, x2=x, y1=_TOP - 6, y2=bottom),
            text(x, bottom + 20, f"{value:+d}" if value and scale.low < 0 else f"{value:d}", "small faint", "middle"),
        ]
    return drawn


def _bar(scale: Scale, y: float, gain: _Gain, kind: str, *, full: bool) -> list[Markup]:
    low, high = scale(gain.mean - gain.interval), scale(gain.mean + gain.interval)
    line = element("line", class_=kind, x1=max(low, scale.start), x2=min(high, scale.end + 8), y1=y, y2=y)
    return [line, _dot(scale(gain.mean), y, kind, full=full)]


def _dot(x: float, y: float, kind: str, *, full: bool) -> Markup:
    return element("circle", class_=kind if full else f"open {kind}", cx=x, cy=y, r=4.5 if full else 4)
