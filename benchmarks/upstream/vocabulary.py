"""Learns the byte pairs of the tokeniser from scene captions and the class names that timm ships.

Usage: `python benchmarks/upstream/vocabulary.py` writes vimlight/embedded/weights/merges.txt.gz.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from timm.data import ImageNetInfo

from vimlight.data.scenes import draw_glyphs, draw_scenes

DESTINATION = Path(__file__).parents[2] / "vimlight" / "embedded" / "weights" / "merges.txt.gz"


def main() -> None:
    """Learns and writes the merges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merges", type=int, default=1000)
    merges = learn_merges(word_counts(), parser.parse_args().merges)
    DESTINATION.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    # Without a time stamp, the same merges give the same file.
    DESTINATION.write_bytes(gzip.compress(text.encode(), mtime=0))


def word_counts() -> Counter[str]:
    """Counts the words of captions, each of which must become one token, and of class names."""
    captions = draw_scenes(20_000, 0, size=8, objects=(1, 4), alike=0.5, shapes=None).captions()
    captions += draw_scenes(5_000, 1, size=8, shapes=None).captions() + draw_glyphs(2_000, 2, size=8).captions()
    counts = Counter(word for text in captions for word in re.findall(r"[a-z]+", text.lower()))
    counts = Counter({word: 10_000 + count for word, count in counts.items()})
    names = ImageNetInfo()
    for label in names.label_names():
        counts.update(re.findall(r"[a-z]+", names.label_name_to_description(label).lower()))
    return counts


def learn_merges(counts: Counter[str], number: int) -> list[tuple[str, str]]:
    """Byte pair encoding [Sennrich et al. 2016]: merges the most frequent neighbours, `number` times."""
    words = {(*word[:-1], word[-1] + "</w>"): count for word, count in counts.items()}
    merges = []
    for _ in range(number):
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, count in words.items():
            for pair in pairwise(parts):
                pairs[pair] += count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = {_merged(parts, best): count for parts, count in words.items()}
    return merges


def _merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    position = 0
    while position < len(parts):
        width = 2 if parts[position : position + 2] == pair else 1
        merged.append("".join(parts[position : position + width]))
        position += width
    return tuple(merged)


if __name__ == "__main__":
    main()
