"""What an image shows, and which side it is on: nothing that a downstream task shows may have taught the zoo.

A *concept* is the single thing that an image shows (a badger, the letter an, the flag of Kenya), named in words and the
same in whatever collection it occurs. Kinds of things, such as mammals, may be asked for on both sides. Of what a
structured task asks for, such as a number of things, the suite leaves the module out that learnt it (`without`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

__all__ = ["NOISE", "clip_art_concept", "concept", "share", "sides"]

# Words in titles of clip art that name no thing.
NOISE = frozenset((
    "a", "an", "and", "another", "archi", "archit", "architetto", "art", "bare", "big", "black", "blue", "brown",
    "cartoon", "clip", "cute", "dark", "de", "di", "for", "from", "gray", "green", "grey", "icon", "in", "la",
    "large", "le", "light", "little", "of", "old", "on", "one", "orange", "page", "pink", "purple", "red", "simple",
    "small", "symbol", "the", "three", "tiny", "two", "un", "una", "white", "with", "yellow",
))  # fmt: skip


def concept(name: str) -> str:
    """Returns the concept of a name: its words in lower case, without numbers and punctuation.

    Args:
        name: A file's or a thing's name, such as `"Face_With-Monocle_02"`.
    """
    return " ".join(re.findall(r"[^\W\d_]+", name.lower()))


def clip_art_concept(title: str, known: frozenset[str]) -> str:
    """Returns the concept of a title that has the artist's name in it: the first word that is known to name a thing.

    Args:
        title: The file's name, such as `"blue_dragonfly_ghuul_01"`.
        known: Words that name things elsewhere; where none of them occurs, the first word that is no noise serves.
    """
    words = concept(title).split()
    telling = [word for word in words if len(word) > 2 and word not in NOISE] or words or [title.lower()]
    return next((word for word in telling if word in known), telling[0])


def share(key: str, salt: str) -> float:
    """Returns a number from 0 to 1 that depends on nothing but the key, the same on every machine.

    Args:
        key: What is dealt out.
        salt: The deal; other deals are independent.
    """
    return int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8], "big") / 2**64


def sides(
    zoo_alone: Iterable[str], tasks_alone: Iterable[str], part: float = 0.5
) -> Callable[[Sequence[str]], str | None]:
    """Returns what tells the side of an image: `"zoo"`, `"tasks"`, or nothing where its concepts are on both.

    Args:
        zoo_alone: Concepts of collections that only teach; they are the zoo's, whatever else shows them.
        tasks_alone: Concepts of collections that are only asked for; they are the tasks' unless they are the zoo's.
        part: The share of all other concepts that is the zoo's.
    """
    first = frozenset(zoo_alone)
    second = frozenset(tasks_alone) - first

    def one(key: str) -> str:
        if key in first or (key not in second and share(key, "side") < part):
            return "zoo"
        return "tasks"

    def side(concepts: Sequence[str]) -> str | None:
        found = {one(key) for key in concepts}
        return found.pop() if len(found) == 1 else None

    return side
