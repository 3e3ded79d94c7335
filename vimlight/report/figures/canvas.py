"""What every figure draws with: shapes, texts, scales and axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vimlight.report.html import Markup, element

__all__ = [
    "Frame", "Scale", "axes", "drawing", "legend", "number_text", "rules", "series_class", "shape", "shortened",
    "ticks", "width_of", "words",
]  # fmt: skip

# Of a letter of the figures' type, in pixels, a little more than most are wide; of a capital, or one of other scripts.
_LETTER, _CAPITAL = 6.4, 12.0
_LATIN = 0x24F  # the last letter of its blocks
_SERIES = 8
_LINE = 18
# Differences that are none.
_FLAT = 1e-30


def drawing(width: float, height: float, label: str, *shapes: Any) -> Markup:
    """Returns a figure.

    Args:
        width: In pixels, as wide as it is shown where there is room.
        height: In pixels.
        label: What it shows, for those who hear it.
        *shapes: What is drawn.
    """
    size = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": round(width), "height": round(height)}
    return element("svg", element("title", label), shapes, role="img", **size)


def shape(name: str, kind: str, hint: str | None = None, /, **places: Any) -> Markup:
    """Returns a shape.

    Args:
        name: `"line"`, `"rect"`, `"circle"`, `"path"` or the like.
        kind: Classes of the style sheet.
        hint: What is shown while one points at it.
        **places: Where it is.
    """
    return element(name, None if hint is None else element("title", hint), class_=kind, **places)


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "start", longest: int = 0) -> Markup:
    """Returns a text.

    Args:
        x: Where it begins, or what `anchor` says.
        y: Its line.
        text: The text.
        kind: Further classes of the style sheet.
        anchor: `"start"`, `"middle"` or `"end"`.
        longest: Of how many letters at most; the whole text is shown while one points at it. 0 for all.
    """
    short = shortened(text, longest) if longest else text
    hint = element("title", text) if short != text else None
    return element("text", hint, short, x=x, y=y, text_anchor=anchor, class_=kind or None)


def shortened(text: str, longest: int) -> str:
    """Returns a text with its end cut off where it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def width_of(texts: Iterable[str], longest: int = 0) -> float:
    """Returns how many pixels the widest of some texts takes.

    Args:
        texts: The texts.
        longest: Of how many letters at most; 0 for all.
    """
    return max((_width(shortened(text, longest) if longest else text) for text in texts), default=0.0)


def _width(text: str) -> float:
    return sum(_CAPITAL if letter.isupper() or ord(letter) > _LATIN else _LETTER for letter in text)


def series_class(number: int) -> str:
    """Returns the classes of a series by its number: colour, and dashes that tell it from the others."""
    return f"s{number % _SERIES}" + (" again" if number >= _SERIES else "")


def number_text(value: float) -> str:
    """Returns a number in a few characters."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(frozen=True)
class Scale:
    """From values to pixels.

    Attributes:
        low: The value at `start`.
        high: The value at `end`.
        start: A pixel.
        end: A pixel.
        log: Whether equal steps are equal factors.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, log: bool = False, pad: float = 0.04) -> Scale:
        """Returns a scale on which all values lie, with some room around them.

        Args:
            values: The values; not finite ones do not count.
            start: Pixel of the least.
            end: Pixel of the greatest.
            log: Whether equal steps are equal factors; only where all are greater than 0.
            pad: The room, as a share.
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        log = log and min(finite) > _FLAT
        low, high = (math.log(value) if log else value for value in (min(finite), max(finite)))
        flat = high - low <= 1e-9 * abs(high) + _FLAT
        room = pad * (high - low) if not flat else 0.5 if log else max(abs(high) * 0.1, _FLAT) if high else 0.5
        low, high = low - room, high + room
        return cls(math.exp(low), math.exp(high), start, end, True) if log else cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        """Returns where a value lies."""
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def ticks(scale: Scale, count: int = 5) -> list[float]:
    """Returns round values on a scale, about so many."""
    if scale.log and scale.high / scale.low > 20:
        exponents = range(math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high)) + 1)
        step = max(1, len(exponents) // count)
        return [10.0**exponent for exponent in exponents[::step]]
    rough = (scale.high - scale.low) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(scale.low / step)
    return [float(f"{step * number:.12g}") for number in range(first, math.floor(scale.high / step) + 1)]


def rules(x: Scale, values: Sequence[float], top: float, bottom: float) -> list[Markup]:
    """Returns an upright rule for each value, with the value below it.

    Args:
        x: Where values lie.
        values: The values.
        top: Where the rules begin.
        bottom: Where they end.
    """
    drawn: list[Markup] = []
    for value in values:
        drawn += [
            shape("line", "rule", x1=x(value), x2=x(value), y1=top, y2=bottom),
            words(x(value), bottom + 16, number_text(value), anchor="middle"),
        ]
    return drawn


@dataclass(frozen=True)
class Frame:
    """The room inside the axes, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


def axes(frame: Frame, x: Scale, y: Scale, x_label: str, y_label: str) -> list[Markup]:
    """Returns rules for the values of the upright axis, marks for those of the level one, and what both measure."""
    drawn = [words(frame.left, frame.top - 10, y_label, "label")]
    for value in ticks(y):
        drawn += [
            shape("line", "rule", x1=frame.left, x2=frame.right, y1=y(value), y2=y(value)),
            words(frame.left - 8, y(value) + 4, number_text(value), anchor="end"),
        ]
    for value in ticks(x):
        drawn += [
            shape("line", "tick", x1=x(value), x2=x(value), y1=frame.bottom, y2=frame.bottom + 4),
            words(x(value), frame.bottom + 18, number_text(value), anchor="middle"),
        ]
    drawn.append(shape("line", "axis", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom))
    return [*drawn, words(frame.right, frame.bottom + 34, x_label, "label", "end")]


def legend(names: Sequence[str], width: float, longest: int = 44) -> tuple[list[Markup], float]:
    """Returns which series is which, from the figure's upper edge on, and how high that is.

    Args:
        names: Names of the series.
        width: How wide it may be.
        longest: Of how many letters a name may be.
    """
    drawn, x, y = [], 0.0, 12.0
    for number, name in enumerate(names):
        needed = 30 + width_of([name], longest) + 14
        if x and x + needed > width:
            x, y = 0.0, y + _LINE
        kind = series_class(number)
        drawn += [
            shape("line", f"line {kind}", x1=x, x2=x + 22, y1=y - 4, y2=y - 4),
            words(x + 28, y, name, longest=longest),
        ]
        x += needed
    return drawn, (y + 10 if names else 0.0)
