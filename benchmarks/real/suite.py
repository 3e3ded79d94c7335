"""The packages' pictures, parted between the zoo and the downstream tasks, as files of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from benchmarks.real import catalogue
from benchmarks.real.catalogue import Picture
from benchmarks.real.concepts import share, sides
from benchmarks.real.kinds import FASHION
from benchmarks.real.pictures import shrink_all

__all__ = ["Suite"]

_THEMES = ("gnome", "mate", "Tango", "elementary-xfce", "Faenza")


@dataclasses.dataclass
class Suite:
    """The packages' pictures, parted between the zoo and the downstream tasks.

    Attributes:
        root: The suite's folder.
        unpacked: Folder of the packages.
    """

    root: Path
    unpacked: Path

    @cached_property
    def stamps(self) -> list[Picture]:
        """The stamps, all of them downstream."""
        return self._on("tasks", catalogue.stamps(self.unpacked))

    @cached_property
    def flags(self) -> list[Picture]:
        """Flags of countries, all of them downstream."""
        drawn = catalogue.country_flags(self.unpacked)
        continents = {flag.concept.removeprefix("flag "): flag.kind for flag in drawn}
        return drawn + catalogue.emoji_flags(self.unpacked, ("twitter", "apple"), continents)

    def emoji(self, side: str) -> list[Picture]:
        """Returns the emoji of a side: of two vendors for the zoo, of two others for the tasks."""
        vendors = ("google", "facebook") if side == "zoo" else ("twitter", "apple")
        return self._on(side, catalogue.emoji(self.unpacked, vendors))

    def clip_art(self, side: str) -> list[Picture]:
        """Returns the clip art of a side."""
        return self._on(side, catalogue.clip_art(self.unpacked, self._known))

    def icons(self, side: str) -> list[Picture]:
        """Returns the icons of a side: of five themes for the zoo, of another for the tasks."""
        return self._on(side, catalogue.icons(self.unpacked, _THEMES if side == "zoo" else ("oxygen",)))

    def grounds(self, side: str) -> list[Path]:
        """Returns the shrunken patterns that serve a side as grounds."""
        folder = self.unpacked / "usr/share/openclipart/png/special"
        patterns = [
            Picture(file, f"grounds/{file.stem}", "ground", file.stem, "clipart")
            for file in sorted([*folder.glob("patterns/*.png"), *folder.glob("gradients/*.png")])
            if (share(file.stem, "side") < 0.5) == (side == "zoo")
        ]
        return [file for _, file in self.shrunken(patterns)]

    def shrunken(self, pictures: Sequence[Picture]) -> list[tuple[Picture, Path]]:
        """Returns the pictures with the files of their shrunken copies; those that were refused are left out."""
        targets = [self.root / "pictures" / f"{picture.name}.png" for picture in pictures]
        refused = set(shrink_all([(picture.file, target) for picture, target in zip(pictures, targets, strict=True)]))
        return [(p, target) for p, target in zip(pictures, targets, strict=True) if p.file not in refused]

    @cached_property
    def _known(self) -> frozenset[str]:
        named = catalogue.emoji(self.unpacked, ("google",)) + catalogue.stamps(self.unpacked)
        return catalogue.known_words(named)

    def _on(self, side: str, pictures: Sequence[Picture]) -> list[Picture]:
        return [picture for picture in pictures if self._side([picture.concept]) == side]

    @cached_property
    def _side(self) -> Callable[[Sequence[str]], str | None]:
        asked = {picture.concept for picture in catalogue.stamps(self.unpacked)}
        return sides(FASHION, asked)
