"""What the unpacked packages hold: every picture with what it shows and of which kind it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.real.concepts import clip_art_concept, concept

__all__ = [
    "Picture",
    "clip_art",
    "country_flags",
    "emoji",
    "emoji_categories",
    "emoji_flags",
    "icons",
    "known_words",
    "stamps",
]

_CLIP_ART = "usr/share/openclipart/png"
_FLAGS = "signs_and_symbols/flags"
_STAMPS = "usr/share/tuxpaint/stamps"
_CONTINENTS = ("africa", "america", "asia", "europe", "oceania")
# Digits and letters are asked for elsewhere, flags too; a skin tone is no thing.
_NO_EMOJI = ("Component", "Flags")
_NO_EMOJI_KINDS = ("keycap", "alphanum")
_NO_CLIP_ART = (_FLAGS, "computer/icons", "special/gradients", "special/patterns", "unsorted")
_NO_STAMPS = ("symbols/alphabets", "symbols/math", "town/flags")
# Folders of icon themes that say what an icon is for.
_CONTEXTS = {
    "actions": "actions",
    "apps": "apps",
    "categories": "categories",
    "devices": "devices",
    "emotes": "emotes",
    "mimes": "mimetypes",
    "mimetypes": "mimetypes",
    "places": "places",
    "status": "status",
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of a package.

    Attributes:
        file: The image file.
        name: A name that is its own, with slashes, which the shrunken picture gets.
        kind: What kind of thing it shows.
        concept: The thing itself; see `concepts`.
        group: The collection, theme or vendor that it is of.
    """

    file: Path
    name: str
    kind: str
    concept: str
    group: str


def emoji(unpacked: Path, vendors: Sequence[str], listed: Sequence[dict[str, object]] | None = None) -> list[Picture]:
    """Returns the emoji of vendors, their subcategories as kinds; flags, digits and letters are left out.

    Args:
        unpacked: Folder of the packages.
        vendors: Names of vendors.
        listed: What `emoji.json` says, where it is known already.
    """
    found = []
    for vendor in vendors:
        for entry in _emoji_list(unpacked, vendor) if listed is None else listed:
            if entry["category"] in _NO_EMOJI or entry["subcategory"] in _NO_EMOJI_KINDS:
                continue
            if entry[f"has_img_{vendor}"]:
                found.append(_emoji(unpacked, vendor, entry, str(entry["subcategory"]), str(entry["short_name"])))
    return found


def emoji_flags(unpacked: Path, vendors: Sequence[str], continents: dict[str, str]) -> list[Picture]:
    """Returns the flags of countries among the emoji of vendors, their continents as kinds.

    Args:
        unpacked: Folder of the packages.
        vendors: Names of vendors.
        continents: The continent of each country, by the concept of its name; others are left out.
    """
    found = []
    for vendor in vendors:
        for entry in _emoji_list(unpacked, vendor):
            country = concept(str(entry["name"]).removesuffix(" Flag"))
            if entry["subcategory"] == "country-flag" and country in continents and entry[f"has_img_{vendor}"]:
                found.append(_emoji(unpacked, vendor, entry, continents[country], f"flag {country}"))
    return found


def emoji_categories(unpacked: Path) -> dict[str, str]:
    """Returns the category of each kind of emoji.

    Args:
        unpacked: Folder of the packages.
    """
    return {str(entry["subcategory"]): str(entry["category"]) for entry in _emoji_list(unpacked, "google")}


def _emoji_list(unpacked: Path, vendor: str) -> list[dict[str, object]]:
    text = (unpacked / f"emoji-datasource-{vendor}" / "emoji.json").read_text(encoding="utf-8")
    return sorted(json.loads(text), key=lambda entry: str(entry["image"]))


def _emoji(unpacked: Path, vendor: str, entry: dict[str, object], kind: str, shown: str) -> Picture:
    file = unpacked / f"emoji-datasource-{vendor}" / "img" / vendor / "64" / str(entry["image"])
    return Picture(file, f"{vendor}/{file.stem}", kind, concept(shown), vendor)


def clip_art(unpacked: Path, known: frozenset[str]) -> list[Picture]:
    """Returns the drawings of openclipart-png, the two outer folders as kinds.

    Many lie in several folders, by several titles; each is taken once, and those among the flags are left to them.

    Args:
        unpacked: Folder of the packages.
        known: Words that name things; see `clip_art_concept`.
    """
    root, found = unpacked / _CLIP_ART, []
    seen = {_content(file) for file in _pngs(root / _FLAGS)}
    for file in _pngs(root):
        kind, content = "/".join(file.relative_to(root).parts[:-1][:2]), _content(file)
        if not kind.startswith(_NO_CLIP_ART) and content not in seen:
            seen.add(content)
            found.append(_placed(root, file, "clipart", kind, clip_art_concept(file.stem, known)))
    return found


def country_flags(unpacked: Path) -> list[Picture]:
    """Returns the flags of openclipart-png that lie in the folder of a continent, which is their kind."""
    root = unpacked / _CLIP_ART / _FLAGS
    return [
        _placed(root, file, "flags", folder, f"flag {concept(file.stem)}")
        for folder in _CONTINENTS
        # Below the continents lie the flags of regions; Oceania has its countries there.
        for file in (_pngs(root / folder) if folder == "oceania" else sorted((root / folder).glob("*.png")))
        if "australia/" not in file.as_posix() or file.stem == "australia"
    ]


def stamps(unpacked: Path) -> list[Picture]:
    """Returns the stamps of Tux Paint, the two outer folders as kinds."""
    root, found = unpacked / _STAMPS, []
    for file in _pngs(root):
        kind = "/".join(file.relative_to(root).parts[:-1][:2])
        if not kind.startswith(_NO_STAMPS) and not file.stem.endswith(("_mirror", "_flip")):
            found.append(_placed(root, file, "stamps", kind, concept(file.stem)))
    return found


def icons(unpacked: Path, themes: Sequence[str]) -> list[Picture]:
    """Returns the icons of themes, each in its largest size up to 256 pixels; what an icon is for is its kind.

    Args:
        unpacked: Folder of the packages.
        themes: Folders below `usr/share/icons`.
    """
    found: dict[tuple[str, str, str], tuple[int, Path]] = {}
    for theme in themes:
        root = unpacked / "usr/share/icons" / theme
        for file in _pngs(root):
            parts = file.relative_to(root).parts[:-1]
            context = next((_CONTEXTS[part] for part in parts if part in _CONTEXTS), None)
            size = next((int(part.split("x")[0]) for part in parts if part.split("x")[0].isdecimal()), 0)
            # Smaller ones are blurred; names of their own are links to others.
            if context is None or not 32 <= size <= 256 or file.is_symlink() or file.stem.endswith("-symbolic"):
                continue
            key = (theme, context, file.stem)
            found[key] = max(found.get(key, (0, file)), (size, file))
    return [
        Picture(file, f"icons/{theme}/{context}/{stem}", context, concept(_direction_free(stem)), theme)
        for (theme, context, stem), (_, file) in found.items()
    ]


def known_words(pictures: Iterable[Picture]) -> frozenset[str]:
    """Returns the last words of the pictures' concepts, which name the things themselves."""
    return frozenset(picture.concept.split()[-1] for picture in pictures if picture.concept)


def _direction_free(stem: str) -> str:
    return stem.removesuffix("-rtl").removesuffix("-ltr")


def _placed(root: Path, file: Path, group: str, kind: str, shown: str) -> Picture:
    return Picture(file, f"{group}/{file.relative_to(root).with_suffix('').as_posix()}", kind, shown, group)


def _content(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def _pngs(root: Path) -> list[Path]:
    return sorted(root.rglob("*.png"))
