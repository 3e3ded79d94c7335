"""What goes into a zoo comes out again, and nothing else changes."""

from __future__ import annotations

import errno
import os
import threading

import pytest
import torch

from vimlight.errors import ZooError
from vimlight.plugins import attach, create_plugin, list_plugins
from vimlight.zoo import Zoo


@pytest.mark.parametrize("kind", list_plugins())
def test_every_type_comes_back_bit_for_bit(kind, backbone, make_module, tmp_path, images):
    module = make_module(kind)
    zoo = Zoo(tmp_path)
    zoo.add("module", module, card={"task": "classification", "license": "apache-2.0"})
    loaded = zoo.load("module", backbone)

    before, after = module.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert (loaded.kind, loaded.settings, loaded.sites) == (module.kind, module.settings, module.sites)
    with attach(backbone, module):
        expected = backbone(images)
    with attach(backbone, loaded):
        assert torch.equal(backbone(images), expected)
    assert not torch.equal(backbone(images), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(dtype, backbone, make_module, tmp_path):
    zoo, module = Zoo(tmp_path), make_module().to(dtype)
    zoo.add("module", module)
    loaded = zoo.load("module", backbone).state_dict()
    assert all(
        loaded[key].dtype == dtype and torch.equal(loaded[key], value) for key, value in module.state_dict().items()
    )


def test_places_blocks_and_settings_are_rebuilt(backbone, tmp_path):
    zoo = Zoo(tmp_path)
    module = create_plugin("lora", backbone, places=["q", "fc2"], blocks="last:1", rank=3, alpha=6.0)
    zoo.add("narrow", module)
    loaded = zoo.load("narrow", backbone)
    assert loaded.site_names == module.site_names
    assert loaded.settings == {"rank": 3, "alpha": 6.0, "bias": False}


def test_a_loaded_module_is_frozen_and_asleep(zoo, backbone):
    loaded = zoo.load("letters", backbone)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())
    assert loaded.backbone_name == "test_vit"
    assert loaded.preprocessing == backbone.preprocessing


@pytest.mark.cuda
def test_a_module_is_loaded_to_the_backbones_device(zoo, backbone):
    try:
        backbone.to("cuda")
        assert {tensor.device.type for tensor in zoo.load("letters", backbone).state_dict().values()} == {"cuda"}
    finally:
        backbone.to("cpu")


def test_loading_heeds_no_default_device(zoo, backbone):
    with torch.device("meta"):
        loaded = zoo.load("letters", backbone)
    assert {tensor.device.type for tensor in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}


def test_loading_leaves_the_random_state_alone(zoo, backbone, untouched_rng):
    zoo.load("letters", backbone)


def test_loading_does_not_follow_later_changes_of_the_file(zoo, backbone):
    loaded = zoo.load("letters", backbone)
    before = {key: value.clone() for key, value in loaded.state_dict().items()}
    file = zoo.path / "letters.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert all(torch.equal(value, before[key]) for key, value in loaded.state_dict().items())


def test_the_order_of_loading_does_not_matter(zoo, backbone, make_module):
    zoo.add("digits", make_module("ssf"))
    forth = {name: zoo.load(name, backbone).state_dict() for name in zoo.names()}
    back = {name: zoo.load(name, backbone).state_dict() for name in reversed(zoo.names())}
    assert all(torch.equal(forth[name][key], back[name][key]) for name in zoo for key in forth[name])


def test_a_zoo_is_a_collection_of_names(zoo, make_module):
    zoo.add("digits", make_module())
    assert zoo.names() == list(zoo) == ["digits", "letters"]
    assert len(zoo) == 2
    assert "digits" in zoo
    assert "letters.head" not in zoo
    assert len(Zoo(zoo.path / "nowhere")) == 0


def test_the_head_is_kept_with_the_module(zoo, make_module):
    head = zoo.load_head("letters")
    assert torch.equal(head["weight"], torch.arange(12.0).view(3, 4))
    assert sorted(head) == ["bias", "weight"]
    zoo.add("headless", make_module())
    with pytest.raises(ZooError, match="module 'headless' has no head"):
        zoo.load_head("headless")


def test_adding_and_removing_leave_every_other_file_alone(zoo, backbone, make_module, snapshot, images):
    def features():
        with attach(backbone, zoo.load("letters", backbone)):
            return backbone(images)

    files, result = snapshot(zoo.path), features()
    zoo.add("digits", make_module(), head={"weight": torch.ones(2)})
    zoo.add("digits", make_module(seed=1), overwrite=True)
    assert {name: state for name, state in snapshot(zoo.path).items() if name in files} == files
    assert torch.equal(features(), result)
    zoo.remove("digits")
    assert snapshot(zoo.path) == files


def test_readers_never_meet_a_module_with_another_ones_head(zoo, make_module):
    """The head's numbers say which module it was written with, as its card does."""
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            head = {"number": torch.tensor(number)}
            zoo.add("letters", make_module(), card={"seed": number}, head=head, overwrite=True)

    zoo.add("letters", make_module(), card={"seed": 0}, head={"number": torch.tensor(0)}, overwrite=True)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [int(zoo.load_head("letters")["number"]) for _ in range(60)]
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert not zoo.verify()


def test_a_taken_name_is_refused_unless_overwritten(zoo, backbone, make_module, snapshot):
    files, module = snapshot(zoo.path), make_module(seed=7)
    with pytest.raises(ZooError, match="has a module 'letters' already"):
        zoo.add("letters", module)
    assert snapshot(zoo.path) == files
    zoo.add("letters", module, overwrite=True)
    assert torch.equal(next(zoo.load("letters", backbone).parameters()), next(module.parameters()))
    assert [path.name for path in zoo.path.iterdir()] == ["letters.safetensors"], "the old head went with its module"


@pytest.mark.parametrize(
    "name", ["", "Letters", "a b", "../a", "a/b", ".a", "-a", "a.head", "a.safetensors", "x" * 101]
)
def test_names_are_plain(zoo, make_module, name, snapshot):
    files = snapshot(zoo.path)
    with pytest.raises(ZooError, match="cannot name a module: up to 100 lower-case letters"):
        zoo.add(name, make_module())
    with pytest.raises(ZooError, match="cannot name a module"):
        zoo.check_new(name, overwrite=True)
    assert snapshot(zoo.path) == files


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_written_half(zoo, make_module, monkeypatch, snapshot, error):
    def fail(_):
        raise error

    files = snapshot(zoo.path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((ZooError, KeyboardInterrupt)):
        zoo.add("digits", make_module(), head={"weight": torch.ones(2)})
    assert snapshot(zoo.path) == files


def test_file_systems_without_links_work_too(zoo, backbone, make_module, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    zoo.add("digits", make_module())
    zoo.load("digits", backbone)
    with pytest.raises(ZooError, match="already"):
        zoo.add("digits", make_module())


def _all_at_once(actions):
    barrier, errors = threading.Barrier(len(actions)), []

    def run(action):
        barrier.wait()
        try:
            action()
        except ZooError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_writers_of_different_names_do_not_meet(tmp_path, backbone, make_module):
    zoo, modules = Zoo(tmp_path / "zoo"), [make_module(seed=seed) for seed in range(6)]
    assert not _all_at_once([lambda i=i: zoo.add(f"module-{i}", modules[i]) for i in range(6)])
    assert not zoo.verify()
    for i, module in enumerate(modules):
        assert torch.equal(next(zoo.load(f"module-{i}", backbone).parameters()), next(module.parameters()))


def test_of_writers_of_one_name_exactly_one_wins(tmp_path, backbone, make_module, monkeypatch):
    zoo, modules = Zoo(tmp_path / "zoo"), [make_module(seed=seed) for seed in range(6)]
    # All have found the name free before the first writes.
    monkeypatch.setattr(Zoo, "check_new", lambda *_: None)
    heads = [{"owner": torch.tensor(i)} for i in range(6)]
    errors = _all_at_once([lambda i=i: zoo.add("same", modules[i], head=heads[i]) for i in range(6)])
    assert len(errors) == 5
    assert all("has a module 'same' already" in error for error in errors)
    winner = modules[int(zoo.load_head("same")["owner"])]
    assert torch.equal(next(zoo.load("same", backbone).parameters()), next(winner.parameters()))
    assert [path.name for path in zoo.path.iterdir()] == ["same.safetensors"]


def test_files_travel_between_zoos(zoo, backbone, tmp_path, snapshot):
    files = snapshot(zoo.path)
    single = zoo.export("letters", tmp_path / "sent" / "alphabet.safetensors")
    assert single == [tmp_path / "sent" / "alphabet.safetensors"]
    other = Zoo(tmp_path / "other")
    assert other.add_file(single[0]) == "alphabet"
    assert other.add_file(single[0], name="again") == "again"
    assert other.card("again") == zoo.card("letters")
    assert torch.equal(other.load_head("again")["bias"], torch.ones(3))
    assert torch.equal(
        next(other.load("alphabet", backbone).parameters()), next(zoo.load("letters", backbone).parameters())
    )
    assert snapshot(zoo.path) == files


def test_a_pair_of_an_earlier_version_is_read_and_becomes_one_file(zoo, pair, make_module, tmp_path):
    head = zoo.load_head("letters")
    _, beside = pair("letters")
    assert all(torch.equal(zoo.load_head("letters")[name], head[name]) for name in head)
    assert not zoo.verify()
    zoo.export("letters", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letters.safetensors"]
    assert torch.equal(Zoo(tmp_path / "out").load_head("letters")["bias"], head["bias"])
    zoo.add("letters", make_module(), overwrite=True)
    assert not beside.exists()
    pair("letters", head)
    zoo.remove("letters")
    assert list(zoo.path.iterdir()) == []


def test_a_head_that_was_lost_is_missed(zoo, pair, tmp_path):
    _, beside = pair("letters")
    beside.unlink()
    lost = "has lost its head: letters.head.safetensors is missing; the module itself is whole"
    assert zoo.verify() == [("letters.safetensors", lost)]
    for call in (lambda: zoo.load_head("letters"), lambda: zoo.export("letters", tmp_path / "out")):
        with pytest.raises(ZooError, match=f"letters.safetensors {lost}"):
            call()


def test_an_export_is_all_or_nothing(zoo, make_module, tmp_path):
    zoo.add("digits", make_module())
    zoo.export(zoo.names(), tmp_path / "out")
    assert Zoo(tmp_path / "out").names() == ["digits", "letters"]
    Zoo(tmp_path / "out").remove("digits")
    with pytest.raises(ZooError, match="has a module 'letters' already"):
        zoo.export(["digits", "letters"], tmp_path / "out")
    assert Zoo(tmp_path / "out").names() == ["letters"]
    with pytest.raises(ZooError, match=r"2 modules do not fit into the one file x\.safetensors; export to a"):
        zoo.export(["digits", "letters"], tmp_path / "x.safetensors")
