"""Plots: sizes, contents, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vimlight.errors import ConfigError
from vimlight.report.plots import confusion_matrix, decode, gate_heatmap, image_grid, png

PLACES = [f"blocks.{block}.{place}" for block in range(12) for place in ("attn", "mlp")]


def texts(figure):
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def drawn(figure):
    """Renders a figure and checks that it has the size it asks for and is not blank."""
    image = decode(png(figure, dpi=50))
    width, height = figure.get_size_inches() * 50
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert abs(image.shape[0] - height) <= 1
    assert abs(image.shape[1] - width) <= 1
    assert len(np.unique(image[..., 0])) > 10
    return image


def test_gates_show_values_names_and_a_scale_from_zero():
    gates = torch.rand(24, 12).add(0.05).softmax(dim=1)
    figure = gate_heatmap(gates, PLACES, [f"module{k}" for k in range(12)], "Gates of digits")
    drawn(figure)
    axes = figure.axes[0]
    assert axes.images[0].get_clim() == (0, pytest.approx(float(gates.max())))
    assert [label.get_text() for label in axes.get_yticklabels()] == PLACES
    assert f"{gates[3, 4]:.2f}" in texts(figure)
    assert figure.get_suptitle() == "Gates of digits"


def test_gates_of_one_row_and_signed_ones():
    drawn(gate_heatmap(torch.full((1, 3), 1 / 3), ["output"], list("abc")))
    signed = gate_heatmap(torch.tensor([[-0.5, 1.0]]), ["output"], list("ab"))
    assert signed.axes[0].images[0].get_clim() == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("gates", "limits"),
    [
        ([[0.01, -0.01]], (-0.5, 0.5)),
        ([[0.01, 0.002]], (0, 0.5)),
        ([[1.47, -0.2]], (-1.47, 1.47)),
        ([[0.0, 0.0, 0.0, 0.0]], (0, 0.25)),
    ],
)
def test_gates_that_are_no_shares_are_called_gates_and_small_ones_look_small(gates, limits):
    figure = gate_heatmap(gates, ["output"], [f"m{k}" for k in range(len(gates[0]))])
    assert figure.axes[0].images[0].get_clim() == limits
    assert "share" not in figure.get_suptitle().lower()


LONG = "Gates of a task whose name is quite long, for places and modules, test"
FIGURES = {
    "one gate": lambda: gate_heatmap([[0.5]], ["output"], ["m"], LONG),
    "gates": lambda: gate_heatmap(np.eye(24, 12), PLACES, [f"module{k}" for k in range(12)], LONG),
    "two classes": lambda: confusion_matrix(np.eye(2), ["a" * 30, "b"], LONG),
    "one image": lambda: image_grid([np.zeros((8, 8, 3), np.uint8)], ["a"], title=LONG, legend={"a" * 30: (1, 2, 3)}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_titles_and_legends_lie_within_the_figure(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    for artist in (figure._suptitle, *figure.legends):
        box = artist.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    assert figure.get_suptitle().replace("\n", " ").startswith(LONG)


def test_a_legend_says_what_colours_stand_for():
    legend = {"cat": (255, 0, 0), "dog": (0, 128, 255)}
    figure = image_grid([np.zeros((8, 8, 3), np.uint8)] * 3, ["a", "b", "c"], legend=legend)
    (shown,) = figure.legends
    assert [text.get_text() for text in shown.get_texts()] == ["cat", "dog"]
    found = [tuple(round(255 * value) for value in patch.get_facecolor()[:3]) for patch in shown.get_patches()]
    assert found == list(legend.values())


@pytest.mark.parametrize("shape", [(0, 3), (2, 2), (3,)])
def test_gates_that_do_not_fit(shape):
    with pytest.raises(ConfigError, match="do not fit"):
        gate_heatmap(torch.zeros(shape), [str(n) for n in range(shape[0])], list("abc"))


@pytest.mark.parametrize("count", [2, 26, 150])
def test_confusion_of_any_number_of_classes(count):
    matrix = np.diag(np.arange(count)) + 1
    figure = confusion_matrix(matrix, [f"class{n}" for n in range(count)], "Test")
    drawn(figure)
    axes = figure.axes[0]
    share = np.trace(matrix) / matrix.sum()
    assert figure.get_suptitle().replace("\n", " ") == f"Test: {share:.1%} of {matrix.sum()} right"
    assert axes.images[0].get_array()[0, 0] == pytest.approx(1 / count)
    assert axes.images[0].get_clim() == (0, 1)


def test_confusion_of_several_labels():
    # One class: 7 rightly left out, 1 false alarm, 2 missed, 6 found.
    figure = confusion_matrix([[[7, 1], [2, 6]], [[16, 0], [0, 0]]], ["red", "blue"])
    drawn(figure)
    shares = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shares[0], [6 / 8, 2 / 8, 1 / 8, 7 / 8])
    np.testing.assert_allclose(shares[1], [0, 0, 0, 1])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()][:2] == ["found", "missed"]


def test_confusion_that_does_not_fit():
    with pytest.raises(ConfigError, match=r"shape \(3, 3\) does not fit 2 classes"):
        confusion_matrix(np.zeros((3, 3)), ["a", "b"])


def test_image_grid_tells_right_from_wrong():
    images = [np.full((8, 8, 3), 40 * n, np.uint8) for n in range(5)]
    figure = image_grid(images, ["a", "b", "c\nnot d", "e", "f"], [True, True, False, True, True])
    drawn(figure)
    styles = [axes.spines["left"].get_linestyle() for axes in figure.axes]
    assert [style == "-" for style in styles] == [True, True, False, True, True]
    with pytest.raises(ConfigError, match="as many captions"):
        image_grid(images, ["a"])


def test_png_and_no_pyplot():
    had_pyplot = "matplotlib.pyplot" in sys.modules
    assert png(gate_heatmap(torch.ones(1, 1), ["a"], ["b"])).startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


def test_dollars_are_dollars_and_powers_of_ten_are_drawn_as_such():
    figure = Figure()
    axes = figure.subplots()
    axes.loglog([1, 10, 1000], [1, 2, 3])
    axes.set_title("of $10 and $20")
    png(figure)
    assert not axes.title.get_parse_math()
    labels = axes.xaxis.get_ticklabels()
    assert any("mathdefault" in label.get_text() for label in labels)
    assert all(label.get_parse_math() for label in labels)
