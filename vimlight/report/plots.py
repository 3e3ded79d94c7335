"""Plots for loggers: gates, confusion matrices, and images with captions.

Every function returns a matplotlib `Figure` with a canvas of its own; pyplot and its global state are never used.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vimlight.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix", "decode", "gate_heatmap", "image_grid", "new_figure", "png", "set_title"]

_INK, _FAINT = "#222222", "#8a8f98"
# From the palette of Okabe and Ito, which stays apart for every kind of colour vision.
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_DPI = 144
_MOST_LABELS = 60
_TITLE = 11
# Of a heat map's cells in all, in inches.
_LARGEST = 24.0


def gate_heatmap(
    gates: npt.ArrayLike, places: Sequence[str], names: Sequence[str], title: str = "Gate of each module at each place"
) -> Figure:
    """Draws gates as a heat map, one row a place and one column a module.

    Args:
        gates: `(places, K)`, of any sign and size. The colours lie evenly around 0 where some are negative and start at
            0 otherwise; they reach at least to an even share, so that gates of almost 0 look like it.
        places: Names of the rows.
        names: Names of the modules.
        title: Title.

    Returns:
        The figure.

    Raises:
        ConfigError: If there are no gates, or not as many as the names say.
    """
    values = np.asarray(gates, dtype=float)
    if values.shape != (len(places), len(names)) or not values.size:
        raise ConfigError(f"gates of shape {values.shape} do not fit {len(places)} places and {len(names)} modules")
    rows, columns = values.shape
    figure, axes = new_figure(2.4 + min(0.52 * columns, _LARGEST), max(1.9, 1.3 + min(0.27 * rows, _LARGEST)))
    signed = bool(values.min() < 0)
    top = max(float(np.abs(values).max()), 1 / columns)
    picture = axes.imshow(
        values, cmap="PuOr" if signed else "Blues", vmin=-top if signed else 0, vmax=top, aspect="auto"
    )
    _label_cells(axes, names, places)
    if values.size <= 400:
        _write_in_cells(axes, np.abs(values) / top, [[f"{value:.2f}" for value in row] for row in values], 7)
    _colour_bar(figure, axes, picture, "gate")
    set_title(figure, title)
    return figure


def confusion_matrix(matrix: npt.ArrayLike, class_names: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """Draws a confusion matrix; colours are shares of each row, so that rare classes are seen as well as frequent ones.

    Args:
        matrix: Counts `(C, C)`, rows the true classes; or `(C, 2, 2)` for several labels an image, which is drawn as
            one row a class with what was found, missed, raised falsely and rightly left out.
        class_names: Names of the C classes.
        title: Title.

    Returns:
        The figure.

    Raises:
        ConfigError: If the matrix does not fit the names.
    """
    counts = np.asarray(matrix)
    size = len(class_names)
    if counts.shape not in ((size, size), (size, 2, 2)):
        raise ConfigError(f"a confusion matrix of shape {counts.shape} does not fit {size} classes")
    shares = _shares(counts)
    if counts.ndim == 2:
        figure, axes = _confusion_cells(counts, shares, class_names, class_names)
        axes.set_ylabel("true class", fontsize=9, color=_INK)
        axes.set_xlabel("predicted class", fontsize=9, color=_INK)
        hits = np.trace(counts)
    else:
        # torchmetrics lays a class out as [[true negative, false positive], [false negative, true positive]].
        counts, shares = (values.reshape(size, 4)[:, [3, 2, 1, 0]] for values in (counts, shares))
        kinds = ["found", "missed", "false alarm", "rightly left out"]
        figure, axes = _confusion_cells(counts, shares, class_names, kinds)
        hits = counts[:, [0, 3]].sum()
    total = counts.sum()
    right = f": {hits / total:.1%} of {total:.0f} right" if total else ": no images"
    set_title(figure, title + right)
    return figure


def image_grid(
    images: Sequence[npt.ArrayLike],
    captions: Sequence[str],
    right: Sequence[bool] | None = None,
    title: str = "",
    legend: Mapping[str, tuple[int, int, int]] | None = None,
) -> Figure:
    """Draws images with captions below them.

    Args:
        images: Each `(H, W, 3)` uint8.
        captions: One an image.
        right: Whether each prediction is right: right ones get a blue frame, wrong ones an orange and dashed one.
        title: Title.
        legend: Colours by what they stand for in the images, each of red, green and blue up to 255.

    Returns:
        The figure.

    Raises:
        ConfigError: If there are no images, or not as many captions.
    """
    if not len(images) or len(images) != len(captions):
        raise ConfigError(f"{len(images)} images need as many captions and at least one; got {len(captions)}")
    columns = min(len(images), 8 if len(images) > 12 else 6)
    rows = math.ceil(len(images) / columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    figure, grid = _figures(1.35 * columns + 0.2, (1.25 + 0.17 * lines) * rows + 0.45, rows, columns)
    for axes in grid:
        axes.set_axis_off()
    for number, (axes, image, caption) in enumerate(zip(grid, images, captions, strict=False)):
        axes.set_axis_on()
        axes.imshow(np.asarray(image), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        good = right is None or right[number]
        colour = _FAINT if right is None else _BLUE if good else _ORANGE
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=1.0 if right is None else 2.2, linestyle="-" if good else (0, (3, 2)))
        axes.set_xlabel(caption, fontsize=8, color=_INK if good else _ORANGE, labelpad=4)
    set_title(figure, title)
    if legend:
        _legend(figure, legend)
    return figure


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """Renders a figure as a PNG file.

    Args:
        figure: The figure.
        dpi: Pixels an inch.
    """
    from matplotlib.text import Text

    powers = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if axis.get_scale() == "log"
        for label in axis.get_ticklabels(which="both")
    }
    # Dollars in the names of classes and methods are dollars, no formulas; only powers of ten are some.
    for text in set(figure.findobj(Text)) - powers:
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def decode(content: bytes) -> npt.NDArray[np.uint8]:
    """Decodes a PNG file.

    Args:
        content: What the file holds.

    Returns:
        `(H, W, 3)`, uint8.
    """
    from PIL import Image

    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure of a size in inches, and its only axes."""
    figure, axes = _figures(width, height, 1, 1)
    return figure, axes[0]


def _figures(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def set_title(figure: Figure, text: str) -> None:
    """Writes a title over the whole figure, on as many lines as it takes."""
    # A letter is about half as wide as it is high.
    letters = max(12, int(figure.get_size_inches()[0] * 72 / (0.56 * _TITLE)))
    lines = textwrap.wrap(text, letters)
    # The room for further lines is not to come off the picture.
    figure.set_figheight(figure.get_figheight() + max(0, len(lines) - 1) * 1.25 * _TITLE / 72)
    figure.suptitle("\n".join(lines), fontsize=_TITLE, color=_INK, x=0.01, ha="left")


def _legend(figure: Figure, colours: Mapping[str, tuple[int, int, int]]) -> None:
    """Says below the figure what colours stand for."""
    from matplotlib.patches import Patch

    across = int(figure.get_size_inches()[0] * 72 / 5) - 9
    patches = [
        Patch(
            color=(red / 255, green / 255, blue / 255),
            label=name if len(name) <= across else f"{name[: across - 1]}…",
        )
        for name, (red, green, blue) in colours.items()
    ]
    letters = min(across, max(map(len, colours))) + 9
    columns = max(1, min(len(patches), (across + 9) // letters))
    rows = math.ceil(len(patches) / columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * rows + 0.1)
    figure.legend(handles=patches, loc="outside lower left", ncols=columns, fontsize=8, frameon=False)


def _confusion_cells(
    counts: npt.NDArray[Any], shares: npt.NDArray[Any], rows: Sequence[str], columns: Sequence[str]
) -> tuple[Figure, Axes]:
    cell = 0.5 if len(rows) <= 12 else min(0.33, _LARGEST / len(rows))
    square = columns is rows
    width = cell if square else 0.9
    figure, axes = new_figure(2.6 + width * len(columns), 2.0 + cell * len(rows))
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    _label_cells(axes, columns, rows)
    if len(rows) <= 40:
        texts = [[str(count) if count else "" for count in row] for row in counts.astype(int)]
        _write_in_cells(axes, shares, texts, 8 if len(rows) <= 12 else 6.5)
    _colour_bar(
        figure, axes, picture, "share of the true class" if square else "share of the images with or without the class"
    )
    return figure, axes


def _label_cells(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = math.ceil(len(names) / _MOST_LABELS)
        axis.set_ticks(range(0, len(names), step), list(names[::step]))
    axes.tick_params(length=0, labelsize=8, labelcolor=_INK)
    if max(map(len, columns), default=0) > 2:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    if max(len(columns), len(rows)) <= _MOST_LABELS:
        # White lines part the cells; as minor grid lines they would be ten times as slow.
        style: dict[str, Any] = {"color": "white", "linewidth": 0.8}
        axes.hlines(np.arange(0.5, len(rows) - 1), -0.5, len(columns) - 0.5, **style)
        axes.vlines(np.arange(0.5, len(columns) - 1), -0.5, len(rows) - 0.5, **style)
    axes.spines[:].set_visible(False)


def _write_in_cells(axes: Axes, darkness: npt.NDArray[Any], texts: Sequence[Sequence[str]], size: float) -> None:
    for (row, column), dark in np.ndenumerate(darkness):
        colour = "white" if dark > 0.6 else _INK
        if text := texts[row][column]:
            label = axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
            # The layout would measure every one of them, several times.
            label.set_in_layout(False)


def _colour_bar(figure: Figure, axes: Axes, picture: Any, label: str) -> None:
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label(label, fontsize=8, color=_INK)
    bar.ax.tick_params(labelsize=7.5, length=2, labelcolor=_INK)
    bar.outline.set_visible(False)


def _shares(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    totals = counts.sum(axis=-1, keepdims=True)
    shares: npt.NDArray[Any] = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    return shares
