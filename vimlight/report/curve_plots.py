"""Plots of what confidence is worth: precision over recall, and accuracy over confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vimlight.report.plots import new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["precision_recall_curves", "reliability_diagram"]

_SIDE = 4.2
_STYLES = ("-", "--", ":", "-.")
_FAINT = "#8a8f98"


def precision_recall_curves(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Figure:
    """Draws precision over recall, a line for each class.

    Args:
        curves: Recall and precision by class.
        title: Title.
    """
    figure, axes = new_figure(_SIDE + 2.2, _SIDE + 0.5)
    for number, (name, points) in enumerate(curves.items()):
        recall, precision = zip(*points, strict=True)
        style = _STYLES[number // 10 % len(_STYLES)]
        axes.plot(recall, precision, drawstyle="steps-post", linestyle=style, linewidth=1.4, label=name)
    _square(axes, "recall", "precision")
    figure.legend(loc="outside right upper", fontsize=7.5, frameon=False)
    set_title(figure, title)
    return figure


def reliability_diagram(bins: Sequence[tuple[float, float, float]], title: str) -> Figure:
    """Draws accuracy over confidence; on the dashed line both are one, and larger dots stand for more predictions.

    Args:
        bins: Number of predictions, their mean confidence and their accuracy.
        title: Title.
    """
    figure, axes = new_figure(_SIDE, _SIDE + 0.5)
    found = [each for each in bins if each[0]]
    most = max((each[0] for each in found), default=1)
    confidence, accuracy = [each[1] for each in found], [each[2] for each in found]
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle="--", linewidth=1)
    axes.plot(confidence, accuracy, color="#0072B2", linewidth=1.4)
    axes.scatter(confidence, accuracy, [8 + 60 * each[0] / most for each in found], color="#0072B2")
    _square(axes, "confidence", "accuracy")
    set_title(figure, title)
    return figure


def _square(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label, aspect="equal")
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
