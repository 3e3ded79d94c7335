"""The nine tasks that teach the zoo."""

from __future__ import annotations

from collections import Counter
from random import Random

from PIL import Image

from benchmarks.real import drawing
from benchmarks.real.building import counted_rows, drawn_row, letter_rows, masked_rows, of_kinds, turned_rows
from benchmarks.real.kinds import FASHION, LETTERS
from benchmarks.real.rows import Row, limited
from benchmarks.real.suite import Suite
from vimlight.data.sources.fashion_mnist import CLASSES, read_idx

__all__ = ["MIDSTREAM"]

_QUARTERS = (0, 90, 180, 270)
_FASHION = "usr/share/datasets/fashion-mnist"


def emoji(suite: Suite) -> list[Row]:
    """Midstream: subcategories of emoji."""
    return of_kinds(suite, suite.emoji("zoo"), lambda picture: picture.kind, least=8, most=60)


def clipart(suite: Suite) -> list[Row]:
    """Midstream: folders of clip art."""
    return of_kinds(suite, suite.clip_art("zoo"), lambda picture: picture.kind, least=12, most=90)


def icons(suite: Suite) -> list[Row]:
    """Midstream: first words of icons' names, such as document, folder, network."""
    return of_kinds(suite, suite.icons("zoo"), lambda picture: picture.concept.split()[0], least=8, most=80)


def letters(suite: Suite) -> list[Row]:
    """Midstream: letters of five scripts in many fonts."""
    return list(letter_rows(suite, "letters", LETTERS, "train", 28, lambda font: True))


def fashion(suite: Suite) -> list[Row]:
    """Midstream: Fashion-MNIST, 250 images of each class."""
    images = read_idx(suite.unpacked / _FASHION / "train-images-idx3-ubyte")
    labels = read_idx(suite.unpacked / _FASHION / "train-labels-idx1-ubyte")
    rows, seen = [], Counter[int]()
    for number, label in enumerate(labels.tolist()):
        if seen[label] < 250:
            seen[label] += 1
            picture = Image.fromarray(255 - images[number])
            rows.append(drawn_row(suite, "fashion", number, picture, CLASSES[label], "train", FASHION[label]))
    return rows


def masks(suite: Suite) -> list[Row]:
    """Midstream: which pixels are the thing?"""
    return masked_rows(suite, "masks", limited(suite.emoji("zoo") + suite.clip_art("zoo"), 1800), "zoo", ())


def rotation(suite: Suite) -> list[Row]:
    """Midstream, self-supervised: which quarter turn?"""
    pictures = limited(suite.emoji("zoo") + suite.clip_art("zoo") + suite.icons("zoo"), 2400)
    return turned_rows(suite, "rotation", [(picture, "train") for picture in pictures], _QUARTERS)


def counts(suite: Suite) -> list[Row]:
    """Midstream: how many things, one to eight?"""
    return counted_rows(suite, "counts", suite.emoji("zoo") + suite.icons("zoo"), 8, {"train": 260})


def places(suite: Suite) -> list[Row]:
    """Midstream: in which of nine cells is the thing?"""
    rows = []
    for number, (picture, file) in enumerate(suite.shrunken(limited(suite.emoji("zoo") + suite.clip_art("zoo"), 2160))):
        image = drawing.placed(file, number % 9, Random(f"places {number}"))
        rows.append(drawn_row(suite, "places", number, image, str(number % 9), "train", picture.concept))
    return rows


MIDSTREAM = {task.__name__: task for task in (emoji, clipart, icons, letters, fashion, masks, rotation, counts, places)}
