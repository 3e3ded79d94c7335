"""What the tasks of the suite are built with: each function returns the rows of a table and writes their images."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from random import Random

from PIL import Image

from benchmarks.real import drawing
from benchmarks.real.catalogue import Picture
from benchmarks.real.concepts import share
from benchmarks.real.pictures import save
from benchmarks.real.rows import Row, limited
from benchmarks.real.suite import Suite

__all__ = ["counted_rows", "dealt_rows", "drawn_row", "letter_rows", "masked_rows", "of_kinds", "turned_rows"]


def of_kinds(
    suite: Suite, pictures: Sequence[Picture], kind: Callable[[Picture], str], least: int, most: int
) -> list[Row]:
    """Returns training rows of all kinds of enough pictures."""
    sizes = Counter(map(kind, pictures))
    rows = []
    for label in sorted(label for label, size in sizes.items() if size >= least):
        chosen = limited([picture for picture in pictures if kind(picture) == label], most)
        rows += [row_of(suite, file, label, "train", picture.concept) for picture, file in suite.shrunken(chosen)]
    return rows


def dealt_rows(suite: Suite, pictures: Sequence[tuple[Picture, str, str]]) -> list[Row]:
    """Returns rows of pictures that were dealt out.

    Args:
        suite: The suite.
        pictures: Pictures with their class and split; see `dealt`.
    """
    about = {picture.name: (label, split) for picture, label, split in pictures}
    shrunken = suite.shrunken([picture for picture, _, _ in pictures])
    return [row_of(suite, file, *about[picture.name], picture.concept) for picture, file in shrunken]


def letter_rows(
    suite: Suite, name: str, characters: str, split: str, each: int, wanted: Callable[[Path], bool]
) -> Iterator[Row]:
    """Draws letters in fonts that have the whole script; the concept is the letter's name.

    Args:
        suite: The suite.
        name: Folder of the images.
        characters: The letters.
        split: `train` or `test`.
        each: Images of each letter.
        wanted: Tells which font files may be used.
    """
    fonts = suite.unpacked / "usr/share/fonts"
    files = sorted(file for file in [*fonts.rglob("*.ttf"), *fonts.rglob("*.otf")] if wanted(file))
    for script in _scripts(characters):
        able = drawing.fonts_with(script, files)
        for character, number in itertools.product(script, range(each)):
            random = Random(f"{name} {split} {character} {number}")
            image = drawing.letter(character, random.choice(able), random)
            about = unicodedata.name(character).lower()
            file = f"{about.replace(' ', '_')}_{number}"
            yield drawn_row(suite, f"{name}/{split}", file, image, about, split, about)


def _scripts(characters: str) -> list[str]:
    """Returns the letters of each script together."""
    scripts: dict[str, str] = {}
    for character in characters:
        script = unicodedata.name(character).split()[0]
        scripts[script] = scripts.get(script, "") + character
    return list(scripts.values())


def turned_rows(suite: Suite, name: str, pictures: Sequence[tuple[Picture, str]], angles: Sequence[int]) -> list[Row]:
    """Draws each picture at one of the angles, which is its label.

    Args:
        suite: The suite.
        name: Name of the task.
        pictures: Pictures with their splits.
        angles: The angles, degrees.
    """
    splits = {picture.name: split for picture, split in pictures}
    rows = []
    for number, (picture, file) in enumerate(suite.shrunken([picture for picture, _ in pictures])):
        angle = angles[number % len(angles)]
        image = drawing.turned(file, angle, Random(f"{name} {number}"))
        rows.append(drawn_row(suite, name, number, image, str(angle), splits[picture.name], picture.concept))
    return rows


def counted_rows(suite: Suite, name: str, pictures: Sequence[Picture], most: int, each: dict[str, int]) -> list[Row]:
    """Draws the same number of images of each count; of the things, three fifths are for training."""
    parts: dict[str, list[tuple[Picture, Path]]] = {"train": [], "test": []}
    for picture, file in suite.shrunken(limited(pictures, 900)):
        training = "test" not in each or share(picture.concept, "split") < 0.6
        parts["train" if training else "test"].append((picture, file))
    rows = []
    for split, number in ((part, number) for part, size in each.items() for number in range(size * most)):
        random = Random(f"{name} {split} {number}")
        few = random.sample(parts[split], 4)
        label = str(number % most + 1)
        image = drawing.counted([file for _, file in few], number % most + 1, random)
        shown = "|".join(sorted({picture.concept for picture, _ in few}))
        rows.append(drawn_row(suite, f"{name}/{split}", number, image, label, split, shown))
    return rows


def masked_rows(suite: Suite, name: str, pictures: Sequence[Picture], side: str, test: Set[str]) -> list[Row]:
    """Draws each picture on a ground, with its mask, in the folders that the data source `mask_folder` reads.

    Args:
        suite: The suite.
        name: Name of the task.
        pictures: The pictures.
        side: Whose patterns are grounds.
        test: Names of the pictures that are for the test.
    """
    grounds, folder, rows = suite.grounds(side), suite.root / "tasks" / name, []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("ground\nthing\n", encoding="utf-8")
    for number, (picture, file) in enumerate(suite.shrunken(pictures)):
        split = "test" if picture.name in test else "train"
        image, mask = drawing.masked(file, grounds, Random(f"{name} {number}"))
        save(image, folder / "images" / split / f"{number:05d}.png")
        save(mask, folder / "masks" / split / f"{number:05d}.png")
        rows.append(Row(f"{name}/images/{split}/{number:05d}.png", "mask", split, picture.concept))
    return rows


def drawn_row(
    suite: Suite, folder: str, name: int | str, image: Image.Image, label: str, split: str, shown: str
) -> Row:
    """Writes a drawn image and returns its row.

    Args:
        suite: The suite.
        folder: Folder of the images of a task.
        name: Name of the image's file.
        image: The image.
        label: Its label.
        split: `train` or `test`.
        shown: Its concepts.
    """
    file = suite.root / "drawn" / folder / (f"{name:05d}.png" if isinstance(name, int) else f"{name}.png")
    save(image, file)
    return row_of(suite, file, label, split, shown)


def row_of(suite: Suite, file: Path, label: str, split: str, shown: str) -> Row:
    return Row(f"../{file.relative_to(suite.root).as_posix()}", label, split, shown)
