"""Transfer between two models of texts, on encoders that need no weights."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import texts
from vimlight.transmiter import LogitCache


def bag_of_words(width):
    """Sums of random vectors, one a word."""

    def vector(word):
        seed = int.from_bytes(word.lower()[:7].encode(), "little") % 2**31
        return torch.randn(width, generator=torch.Generator().manual_seed(seed))

    return lambda some: torch.stack([sum(map(vector, text.split())) for text in some])


def test_topics_are_those_of_the_docstrings():
    collected = texts.collect()
    assert {topic for _, topic in collected} == set(texts.TOPICS)
    assert len({text for text, _ in collected}) == len(collected)
    parts = texts.split(collected, seed=0)
    assert [len(parts[part]) for part in ("train", "val")] == [16 * 8, 4 * 8]
    assert sorted(row for part in parts.values() for row in part) == sorted(collected)
    assert texts.split(collected, seed=1)["train"] != parts["train"]


@pytest.mark.slow
def test_what_tuning_taught_one_encoder_of_texts_moves_to_another(tmp_path, capsys):
    out = tmp_path / "out"
    texts.main(["--out", str(out), "--seeds", "1"], {"weak": bag_of_words(24), "strong": bag_of_words(64)})
    found = json.loads((out / "results.json").read_text())
    assert {"target_zero_shot", "source_tuned", "eft", "transmiter", "safe"} <= set(found["runs"][0]["methods"])
    assert LogitCache.open(out / "0/weak/test").width == 24
    assert LogitCache.open(out / "0/strong/test").width == 64
    assert "TransMiter" in (out / "table.md").read_text()
