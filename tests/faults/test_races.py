"""Processes that write the same at the same moment, and that read meanwhile."""

from __future__ import annotations

import functools
import time

import pytest
from children import together
from scene import Scene, names, same
from writers import WRITERS, features, head, modules, plugin

from vimlight.errors import CacheError
from vimlight.files import tensor_file
from vimlight.report.run_directories import claim
from vimlight.transmiter import LogitCache, write_cache
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.writer import CacheWriter
from vimlight.zoo import Zoo

COUNTS = [2, pytest.param(4, marks=[pytest.mark.faults, pytest.mark.slow])]


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", WRITERS)
def test_processes_that_write_the_same(tmp_path, name, count, record_property):
    scene = Scene(name, tmp_path)
    for _ in range(3):
        scene.put_back()
        outcomes = together([lambda: scene.writer.write(False)] * count)
        assert [each.error for each in outcomes if each.error and not each.typed] == []
        assert any(not each.error for each in outcomes), outcomes
        assert all(len(each.error.splitlines()) <= 2 for each in outcomes)
        assert same(scene.writer.read(), scene.came)
        assert [name for name in names(scene.root) if name not in scene.names] == []
    record_property("processes raced", 3 * count)


@pytest.mark.parametrize("count", COUNTS)
def test_of_those_who_want_a_name_in_a_zoo_one_gets_it(tmp_path, count, record_property):
    zoo, rounds = Zoo(tmp_path / "zoo"), 5
    for number in range(rounds):
        add = [functools.partial(zoo.add, f"m{number}", plugin(seed), {}, head(seed)) for seed in range(count)]
        outcomes = together(add)
        (winner,) = [seed for seed, each in enumerate(outcomes) if not each.error]
        assert all("already" in each.error for seed, each in enumerate(outcomes) if seed != winner)
        _, tensors, its_head = modules(zoo.path)[f"m{number}"]
        assert same(tensors, dict(plugin(winner).state_dict()))
        assert same(its_head, head(winner))
    assert names(zoo.path) == [f"m{number}.safetensors" for number in range(rounds)]
    record_property("processes raced", rounds * count)


@pytest.mark.parametrize("count", COUNTS)
def test_those_who_read_a_module_while_it_is_replaced_find_one_or_the_other(tmp_path, count, record_property):
    zoo = Zoo(tmp_path / "zoo")
    states = [dict(plugin(seed).state_dict()) for seed in range(2)]
    zoo.add("a", plugin(0), {}, head(0))

    def replace():
        for turn in range(20):
            zoo.add("a", plugin(turn % 2), {}, head(turn % 2), overwrite=True)

    def read():
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            _, tensors = zoo.read("a")
            found = zoo.load_head("a")
            assert any(same(tensors, state) for state in states)
            assert any(same(found, head(seed)) for seed in range(2))

    outcomes = together([replace, read] * (count // 2))
    assert [each.error for each in outcomes if each.error] == []
    record_property("processes raced", count)


def test_a_module_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    zoo, other = (Zoo(tmp_path / name) for name in ("zoo", "other"))
    for seed, place in enumerate((zoo, other)):
        place.add("a", plugin(seed), {}, head(seed))
    real = tensor_file.StoredFile

    def replaced(content):
        if other.names():
            (other.path / "a.safetensors").replace(zoo.path / "a.safetensors")
        return real(content)

    monkeypatch.setattr(tensor_file, "StoredFile", replaced)
    _, tensors = zoo.read("a")
    assert not other.names()
    assert same(tensors, dict(plugin(1).state_dict()))


@pytest.mark.parametrize("count", COUNTS)
def test_every_run_has_a_directory_of_its_own(tmp_path, count, record_property):
    def claim_some(mark):
        for _ in range(10):
            (tmp_path / f"version_{claim(tmp_path)}" / mark).touch(exist_ok=False)

    outcomes = together([functools.partial(claim_some, f"of {number}") for number in range(count)])
    assert [each.error for each in outcomes if each.error] == []
    assert [len(list(path.iterdir())) for path in tmp_path.iterdir()] == [1] * (10 * count)
    record_property("processes raced", count)


def build(path, seed):
    made = features(seed)
    manifest = Manifest("weak", "train", made["class_names"], width=8, dtype="float16", views=2, data={"seed": seed})
    out = CacheWriter(path, manifest, ids=made["ids"], labels=made["labels"], part_rows=4)
    for part in out.missing():
        rows = out.part_range(part)
        out.put(part, made["features"][rows.start : rows.stop])
    out.finish(made["head"])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seeds", [[0], [0, 1]], ids=["of one run", "of two runs"])
def test_builds_of_one_cache_never_mix(tmp_path, count, seeds, record_property):
    whole = [write_cache(tmp_path / f"whole{seed}", **features(seed)).logits() for seed in seeds]
    for turn in range(3):
        place = tmp_path / str(turn) / "cache"
        outcomes = together([functools.partial(build, place, seeds[n % len(seeds)]) for n in range(count)])
        assert all(each.typed for each in outcomes if each.error), outcomes
        if not any(not each.error for each in outcomes):
            # Each of them saw that another was at work.
            assert len(seeds) == 2
            continue
        cache = LogitCache.open(place)
        assert cache.verify() == []
        assert any(same(cache.logits(), each) for each in whole)
    record_property("processes raced", 3 * count)


@pytest.mark.parametrize("count", COUNTS)
def test_those_who_open_a_cache_while_it_is_replaced_find_one(tmp_path, count, record_property):
    path = tmp_path / "cache"
    whole = [write_cache(tmp_path / f"whole{seed}", **features(seed)).logits() for seed in range(2)]
    write_cache(path, **features(0))

    def replace():
        for turn in range(10):
            write_cache(path, **features(turn % 2), overwrite=True)

    def read():
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            try:
                found = LogitCache.open(path).logits()
            except CacheError as error:
                # It was opened before and is read after; another cache's files are not its own.
                assert "does not exist" not in str(error)  # noqa: PT017
                continue
            assert any(same(found, each) for each in whole)

    outcomes = together([replace, *[read] * (count - 1)])
    assert [each.error for each in outcomes if each.error] == []
    record_property("processes raced", count)
