"""The ten tasks that are asked, in three groups: natural, symbols, structured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from benchmarks.real.building import counted_rows, dealt_rows, drawn_row, letter_rows, masked_rows, turned_rows
from benchmarks.real.concepts import share
from benchmarks.real.kinds import CLIP_ART, EMOJI, GEORGIAN, STAMPS, kind_of
from benchmarks.real.rows import Row, dealt
from benchmarks.real.suite import Suite

__all__ = ["DOWNSTREAM"]

_EIGHTHS = tuple(range(0, 360, 45))


def natural_stamps(suite: Suite) -> list[Row]:
    """Downstream, natural: photographs and drawings of a paint program."""
    return dealt_rows(suite, dealt(suite.stamps, lambda picture: kind_of(STAMPS, picture.kind), 60, 40))


def natural_emoji(suite: Suite) -> list[Row]:
    """Downstream, natural: kinds of emoji, other things by other vendors."""
    return dealt_rows(suite, dealt(suite.emoji("tasks"), lambda picture: kind_of(EMOJI, picture.kind), 60, 24))


def natural_clipart(suite: Suite) -> list[Row]:
    """Downstream, natural: kinds of clip art, other things."""
    return dealt_rows(suite, dealt(suite.clip_art("tasks"), lambda picture: kind_of(CLIP_ART, picture.kind), 60, 30))


def symbols_letters(suite: Suite) -> list[Row]:
    """Downstream, symbols: Georgian letters, tested in fonts that are not trained on."""

    def trained(font: Path) -> bool:
        return share(font.name, "font") < 0.4

    train = letter_rows(suite, "georgian", GEORGIAN, "train", 40, trained)
    return [*train, *letter_rows(suite, "georgian", GEORGIAN, "test", 15, lambda font: not trained(font))]


def symbols_digits(suite: Suite) -> list[Row]:
    """Downstream, symbols: handwritten digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    rows, seen = [], Counter[int]()
    for number, (pixels, label) in enumerate(zip(found.images, found.target.tolist(), strict=True)):
        seen[label] += 1
        small = Image.fromarray((255 - pixels * (255 / 16)).astype("uint8"))
        picture = small.resize((64, 64), Image.Resampling.BICUBIC)
        split = "train" if seen[label] <= 80 else "test"
        if seen[label] <= 130:
            rows.append(drawn_row(suite, "digits", number, picture, str(label), split, f"digit {label}"))
    return rows


def symbols_flags(suite: Suite) -> list[Row]:
    """Downstream, symbols: the continent of a country's flag."""
    return dealt_rows(suite, dealt(suite.flags, lambda picture: picture.kind, 80, 80))


def symbols_icons(suite: Suite) -> list[Row]:
    """Downstream, symbols: what an icon of an unseen theme is for."""
    return dealt_rows(suite, dealt(suite.icons("tasks"), lambda picture: picture.kind, 60, 60))


def structured_counts(suite: Suite) -> list[Row]:
    """Downstream, structured: how many things, one to six?"""
    return counted_rows(suite, "structured_counts", suite.emoji("tasks") + suite.stamps, 6, {"train": 60, "test": 60})


def structured_orientation(suite: Suite) -> list[Row]:
    """Downstream, structured: which of eight directions is up?"""
    pictures = dealt(suite.stamps + suite.emoji("tasks"), lambda picture: "", 400, 400)
    return turned_rows(suite, "structured_orientation", [(picture, split) for picture, _, split in pictures], _EIGHTHS)


def structured_masks(suite: Suite) -> list[Row]:
    """Downstream, structured: which pixels are the thing, on other things and other grounds?"""
    pictures = dealt(suite.stamps, lambda picture: "", 200, 200)
    test = {picture.name for picture, _, split in pictures if split == "test"}
    return masked_rows(suite, "structured_masks", [picture for picture, _, _ in pictures], "tasks", test)


_TASKS = (
    natural_stamps, natural_emoji, natural_clipart, symbols_letters, symbols_digits, symbols_flags, symbols_icons,
    structured_counts, structured_orientation, structured_masks,
)  # fmt: skip
DOWNSTREAM = {task.__name__: task for task in _TASKS}
