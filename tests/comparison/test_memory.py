"""Remembered features: computed once, the same to the bit whatever came before, and within a limit of memory."""

from __future__ import annotations

import pytest
import torch

from vimlight.backbone import Prefix
from vimlight.comparison import data as comparison_data
from vimlight.comparison import memory
from vimlight.comparison.data import ComparisonData
from vimlight.comparison.memory import FeatureMemory
from vimlight.comparison.pulse import Pulse, parts_under_way
from vimlight.prefix_cache import FrozenPart

CPU = torch.device("cpu")


@pytest.fixture
def data(vit):
    options = {"shots": 3, "test_limit": 40, "preprocessing": vit.preprocessing}
    return ComparisonData("digits", **options), ComparisonData("digits", seed=1, **options)


def features(kept, model, data, split="test", key="model"):
    calls = []

    def compute():
        calls.append(key)
        return model

    rows = list(kept.rows(key, compute, data, split, CPU))
    return [number for part, _ in rows for number in part], torch.cat([x for _, x in rows]), len(calls)


def test_features_are_computed_once_for_the_same_images(data, vit):
    first, second = data
    kept = FeatureMemory(mixed=False)
    rows, found, calls = features(kept, vit, first)
    assert calls == 1
    ids = first.tables["test"].ids
    assert [ids[row] for row in rows] == sorted(ids)
    # The test images of another seed are the same ones; its training images are others of the same few.
    again, same, calls = features(kept, vit, second)
    assert (again, calls) == (rows, 0)
    assert torch.equal(same, found)
    assert features(kept, vit, first, "train")[2] == 1
    assert features(kept, vit, second, "train")[2] == 0
    assert features(kept, vit, first, key="another model")[2] == 1


def test_features_are_those_of_their_rows(data, vit):
    rows, found, _ = features(FeatureMemory(mixed=False), vit, data[0])
    with torch.no_grad():
        for batch, chunk in data[0].read("test", [rows]):
            assert batch == rows
            torch.testing.assert_close(found, vit(chunk))


def test_of_many_images_only_the_sample_goes_through_the_model(data, vit, monkeypatch):
    monkeypatch.setattr(comparison_data, "_FEW", 100)
    kept = FeatureMemory(mixed=False)
    rows, found, calls = features(kept, vit, data[0], "train")
    assert (len(rows), calls) == (30, 1)
    monkeypatch.undo()
    fresh = ComparisonData("digits", shots=3, test_limit=40, preprocessing=vit.preprocessing)
    again, same, calls = features(kept, vit, fresh, "train")
    assert (again, calls) == (rows, 1)
    torch.testing.assert_close(same, found)


def test_what_was_asked_for_last_is_kept_up_to_a_limit(data, vit, monkeypatch):
    kept = FeatureMemory(mixed=False)
    _, found, _ = features(kept, vit, data[0])
    monkeypatch.setattr(memory, "_LIMIT", found.numel() * found.element_size())
    assert features(kept, vit, data[0], key="another")[2] == 1
    assert features(kept, vit, data[0], key="another")[2] == 0
    assert features(kept, vit, data[0])[2] == 1
    monkeypatch.setattr(memory, "_LIMIT", 8)
    assert torch.equal(features(kept, vit, data[0], key="third")[1], found)
    assert features(kept, vit, data[0], key="third")[2] == 1


def test_jobs_tell_how_far_they_are(tmp_path):
    pulse = Pulse(tmp_path / "one", steps=4)
    pulse.step()
    pulse._said = 0
    pulse.at(0.5)
    assert parts_under_way(tmp_path, ["one", "not begun"]) == pytest.approx(1.5 / 4)
    pulse.end()
    assert parts_under_way(tmp_path, ["one"]) == 0


def test_what_models_begin_with_is_computed_once(data, vit, monkeypatch):
    plain = features(FeatureMemory(mixed=False), vit, data[0])[1]
    part = FrozenPart(vit, "last", tuned=2)
    begun = []
    prefix = vit.prefix
    monkeypatch.setattr(vit, "prefix", lambda *args: begun.append(len(args[0])) or prefix(*args), raising=False)
    kept = FeatureMemory(mixed=False)
    for key in ("one", "other"):
        seen = []

        def model(images, seen=seen):
            seen.append(type(images))
            return vit(images)

        rows = list(kept.rows(key, lambda model=model: model, data[0], "test", CPU, lambda: ("digits", part)))
        assert torch.equal(torch.cat([found for _, found in rows]), plain)
        assert set(seen) == {Prefix}
    assert sum(begun) == len(plain)
    # Other images, and what is too much to keep, are begun anew.
    list(kept.rows("one", lambda: vit, data[0], "train", CPU, lambda: ("digits", part)))
    assert sum(begun) > len(plain)
    monkeypatch.setattr(memory, "_LIMIT", 8)
    list(kept.rows("third", lambda: vit, data[0], "train", CPU, lambda: ("letters", part)))
    assert not kept._begun
