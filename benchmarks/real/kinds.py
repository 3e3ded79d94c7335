"""Which kinds of things the downstream tasks tell apart, laid down before any result was seen."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CLIP_ART", "EMOJI", "FASHION", "GEORGIAN", "LETTERS", "STAMPS", "kind_of"]

# Kinds by the folders, or the beginnings of names of subcategories, that they take in.
STAMPS: Mapping[str, tuple[str, ...]] = {
    "mammal": ("animals/mammals", "animals/marsupials"),
    "bird": ("animals/birds",),
    "small animal": (
        "animals/insects", "animals/fish", "animals/amphibians", "animals/shellfish", "animals/lizards",
    ),
    "fruit": ("food/fruit",),
    "plant": ("plants",),
    "money": ("symbols/money",),
    "building": ("town/houses", "town/monuments"),
    "holiday": ("seasonal",),
    "vehicle": ("vehicles", "military/vehicles"),
    "household": ("household",),
}  # fmt: skip
EMOJI: Mapping[str, tuple[str, ...]] = {
    "mammal": ("animal-mammal",),
    "other animal": ("animal-bird", "animal-marine", "animal-reptile", "animal-amphibian"),
    "produce": ("food-fruit", "food-vegetable"),
    "meal": ("food-prepared", "food-asian"),
    "sweet or drink": ("food-sweet", "drink", "dishware"),
    "plant": ("plant-",),
    "face": ("face-",),
    "role": ("person-role",),
    "activity": ("person-activity",),
    "athlete": ("person-sport",),
    "family": ("family",),
    "hand or body": ("hand", "body-parts"),
    "heart or feeling": ("heart", "emotion"),
    "ground transport": ("transport-ground",),
    "sky": ("sky & weather",),
    "clothing": ("clothing",),
    "sport": ("sport",),
    "place": ("place-building", "place-other", "place-religious"),
    "paper": ("office", "mail", "book-paper", "writing"),
    "sign": ("transport-sign", "warning", "av-symbol", "arrow"),
}
CLIP_ART: Mapping[str, tuple[str, ...]] = {
    kind.split("/")[-1].replace("_", " "): (kind,)
    for kind in (
        "animals/birds", "animals/bugs", "animals/mammals", "computer/buttons", "computer/hardware", "food/beverages",
        "food/breads_and_carbs", "food/desserts", "food/fruit", "geography", "office", "people/clothing",
        "plants/flowers", "recreation/games", "recreation/holiday", "recreation/music", "recreation/party",
        "recreation/sports", "signs_and_symbols/map_symbols", "tools", "transportation/aiga-symbols",
        "transportation/roadsigns", "transportation/vehicles",
    )
}  # fmt: skip
FASHION = ("t shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
# Letters of the zoo: Latin, and of Greek, Cyrillic, Hebrew and Devanagari those that look like no other.
LETTERS = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "abdefghijmnqrty"
    "\u0393\u0394\u0398\u039b\u039e\u03a0\u03a3\u03a6\u03a8\u03a9"
    "\u0411\u0413\u0414\u0416\u0418\u041b\u0424\u0426\u0427\u0428\u042a\u042d\u042e\u042f"
    "\u05d0\u05d1\u05d2\u05d3\u05d4\u05d6\u05d8\u05db\u05dc\u05de\u05e2\u05e4\u05e6\u05e7\u05e9\u05ea"
    "\u0905\u0907\u0909\u090f\u0915\u0916\u0917\u091a\u091c\u091d\u0924\u0926\u0928\u092a\u092c\u092e\u0930\u0932\u0938"
)
GEORGIAN = "".join(chr(code) for code in range(0x10D0, 0x10F1))


def kind_of(kinds: Mapping[str, tuple[str, ...]], folder: str) -> str | None:
    """Returns the kind that a folder or subcategory belongs to, or nothing.

    Args:
        kinds: Beginnings of names by kind.
        folder: The name.
    """
    return next((kind for kind, starts in kinds.items() if folder.startswith(starts)), None)
