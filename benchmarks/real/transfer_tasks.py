"""What image-text models are taught with, and the eight data sets that they are asked for: other things, other images.

Of the first half's parting of concepts, the zoo's side teaches and the tasks' side is asked. Fashion-MNIST is asked for
here, so that no picture of clothing teaches; flags, digits and letters are asked for alone.
"""

from __future__ import annotations

from collections import Counter

from PIL import Image

from benchmarks.real import catalogue
from benchmarks.real.building import dealt_rows, drawn_row, of_kinds
from benchmarks.real.catalogue import Picture
from benchmarks.real.downstream import natural_clipart, natural_emoji, natural_stamps, symbols_digits, symbols_flags
from benchmarks.real.kinds import FASHION
from benchmarks.real.rows import Row, dealt
from benchmarks.real.suite import Suite
from vimlight.data.sources.fashion_mnist import read_idx

__all__ = ["ASKED", "PROMPTS", "pairs"]

_FASHION = "usr/share/datasets/fashion-mnist"
_CLOTHING = ("clothing", "people/clothing")
_CLOTHES = frozenset(word for name in FASHION for word in name.split() if len(word) > 1)
# Subjects of clip art that are no thing, or are asked for elsewhere.
_NO_SUBJECTS = ("special", "shapes", "unsorted", "signs_and_symbols")


def pairs(suite: Suite) -> list[Row]:
    """Pictures with the names of what they show as concepts; labels are kinds as broad as those that are asked for."""
    shown = [picture for picture in suite.emoji("zoo") + suite.clip_art("zoo") if not _clothing(picture)]
    known = catalogue.emoji_categories(suite.unpacked)

    def broad(picture: Picture) -> str:
        return known.get(picture.kind, picture.kind.split("/")[0]).lower()

    return of_kinds(suite, shown, broad, least=1, most=10**6)


def emoji_category(suite: Suite) -> list[Row]:
    """Categories of emoji by two other vendors, of other things."""
    known = catalogue.emoji_categories(suite.unpacked)
    dealt_out = dealt(suite.emoji("tasks"), lambda picture: known[picture.kind].lower(), 60, 60)
    return dealt_rows(suite, dealt_out)


def clipart_subject(suite: Suite) -> list[Row]:
    """Subjects of clip art, of other things."""

    def subject(picture: Picture) -> str | None:
        found = picture.kind.split("/")[0]
        return None if found in _NO_SUBJECTS else found

    return dealt_rows(suite, dealt(suite.clip_art("tasks"), subject, 60, 60))


def fashion(suite: Suite) -> list[Row]:
    """Fashion-MNIST, dark on white, 60 images of each class to learn from and 60 to be tested on."""
    rows = []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(suite.unpacked / _FASHION / f"{prefix}-images-idx3-ubyte")
        labels = read_idx(suite.unpacked / _FASHION / f"{prefix}-labels-idx1-ubyte")
        seen = Counter[int]()
        for number, label in enumerate(labels.tolist()):
            seen[label] += 1
            if seen[label] <= 60:
                picture = Image.fromarray(255 - images[number])
                rows.append(
                    drawn_row(suite, f"asked_fashion/{split}", number, picture, FASHION[label], split, FASHION[label])
                )
    return rows


def _clothing(picture: Picture) -> bool:
    return picture.kind.startswith(_CLOTHING) or bool(_CLOTHES & set(picture.concept.split()))


ASKED = {
    "emoji_category": emoji_category,
    "emoji_kind": natural_emoji,
    "stamps": natural_stamps,
    "clipart_subject": clipart_subject,
    "clipart_kind": natural_clipart,
    "fashion": fashion,
    "digits": symbols_digits,
    "flags": symbols_flags,
}
# What the classes are called in words, where their label alone does not say.
PROMPTS = {"digits": "the digit {}", "flags": "flag of {}"}
