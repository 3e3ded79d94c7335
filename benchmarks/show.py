"""Tables, JSON and plots of what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.results import Bar, Comparison, Figure

__all__ = ["machine", "plot", "show"]

_PACKAGES = ("vimlight", "torch", "timm", "lightning", "open_clip_torch", "peft", "numpy")


def machine(device: torch.device) -> dict[str, Any]:
    """Returns what the numbers depend on."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def show(result: Comparison | Figure, console: Console) -> None:
    """Prints a result."""
    if isinstance(result, Figure):
        console.print(f"{result.title}: [bold]{result.value:,.4g}[/] {result.unit}", _verdict(result.bar, result.value))
        return
    console.print(f"[bold]{result.title}[/]", soft_wrap=True)
    table = Table(box=SIMPLE)
    for column in ("", "ms", "ratio", "quartiles", "CPU", "FLOPs", "peak MB", "kept MB", "bar"):
        table.add_column(column, justify="left" if column in ("", "bar") else "right", no_wrap=True)
    for row in result.rows:
        table.add_row(
            row.name,
            f"{1000 * row.seconds:,.1f}",
            f"{row.ratio:.3f}",
            "{:.3f} - {:.3f}".format(*row.ratio_spread),
            f"{row.processor_ratio:.3f}" if row.processor_ratio else "",
            f"{row.flop_ratio:.3f}" if row.flop_ratio else "",
            f"{row.peak_mb:,.0f}" if row.peak_mb else "",
            f"{row.kept_mb:,.0f}" if row.kept_mb else "",
            _verdict(row.bar, row.ratio),
        )
    console.print(table)


def plot(results: Sequence[Comparison | Figure], folder: Path) -> list[Path]:
    """Draws each curve that the results have points of.

    Args:
        results: What was measured.
        folder: Where the PNG files go.

    Returns:
        The files.
    """
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    axes: dict[str, tuple[str, str]] = {}
    for result in results:
        if result.curve is None or result.x is None:
            continue
        lines = curves.setdefault(result.curve, {})
        axes[result.curve] = (result.axis, "time / reference" if isinstance(result, Comparison) else result.unit)
        for name, value in _points(result).items():
            lines.setdefault(name, []).append((result.x, value))
    return [_draw(name, lines, axes[name], folder) for name, lines in curves.items()]


def _points(result: Comparison | Figure) -> dict[str, float]:
    if isinstance(result, Figure):
        return {result.title.split(",")[0]: result.value}
    times = {row.name: row.ratio for row in result.rows}
    more = [row for row in result.rows if row.flop_ratio and row.flop_ratio > 1]
    return times | {f"{row.name}, FLOPs": row.flop_ratio for row in more if row.flop_ratio}


def _draw(name: str, lines: Mapping[str, list[tuple[float, float]]], labels: tuple[str, str], folder: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(6.4, 4.2), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for line, points in lines.items():
        xs, ys = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, "--" if line.endswith("FLOPs") else "o-", label=line, linewidth=1.4, markersize=4)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=name, xscale="log")
    spans = [y for points in lines.values() for _, y in points]
    if max(spans) > 8 * max(min(spans), 1e-12):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    file = folder / f"{name.replace(' ', '_')}.png"
    figure.savefig(file)
    return file


def _verdict(bar: Bar | None, value: float) -> str:
    if bar is None:
        return ""
    return f"[green]{bar} met[/]" if bar.met(value) else f"[red]{bar} missed[/]"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
