"""Every kind of file says its format: newer ones are refused with what to upgrade, older ones are read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import vimlight.comparison.store
from vimlight.comparison.store import Store as Results
from vimlight.comparison.store import _sum_of, key_of
from vimlight.errors import VimlightError
from vimlight.files.checkpoint_facts import CHECKPOINT_VERSION
from vimlight.files.exported import CARD_VERSION
from vimlight.files.tensor_file import pack
from vimlight.interop.modelscope import folder as release
from vimlight.prefix_cache.store import Store
from vimlight.report.files import read_results, read_versions, stamped, versions_text
from vimlight.trainable import TrainableModule, read_checkpoint
from vimlight.transmiter.adapters.file import FORMAT_VERSION as ADAPTER
from vimlight.transmiter.adapters.file import AdapterCard
from vimlight.transmiter.adapters.file import read_card as read_adapter_card
from vimlight.transmiter.cache.manifest import FORMAT as CACHE
from vimlight.transmiter.cache.manifest import MANIFEST, Manifest, read_manifest
from vimlight.zoo.card import FORMAT_VERSION as MODULE
from vimlight.zoo.card import Card
from vimlight.zoo.files import read_card
from vimlight.zoo.sharing import read_lock
from vimlight.zoo.sharing.index import Index

ABSENT = object()
TENSORS = {"a": torch.ones(1)}


def carded(card):
    """Writes a safetensors file with a card."""
    return lambda path: path.write_bytes(pack(json.dumps(card), TENSORS))


def saved(content):
    return lambda path: torch.save(content, path)


class Kind:
    """A kind of file: what it says of itself, how that gets into a file, and how it is read."""

    def __init__(self, about, write, read, known, suffix, *, key="format_version", must_say=True):
        self.about, self.write, self.read, self.known = about, write, read, known
        self.suffix, self.key, self.must_say = suffix, key, must_say

    def reading(self, folder, version):
        """Writes a file of a version and reads it."""
        about = {key: value for key, value in self.about.items() if key != self.key}
        if version is not ABSENT:
            about[self.key] = version
        path = folder / f"a{self.suffix}"
        self.write(about)(path)
        return self.read(path)


def _manifest(about):
    def write(path):
        path.mkdir(exist_ok=True)
        (path / MANIFEST).write_text(json.dumps(about))

    return write


def _resumed(path):
    module = SimpleNamespace()
    TrainableModule.on_load_checkpoint(module, torch.load(path, weights_only=True))


def as_json(about):
    return lambda path: path.write_text(json.dumps(about))


def _summed(about):
    """Writes a result with the checksum that belongs to it."""
    return as_json({**about, "crc32": _sum_of(about)})


def _card_of_release(path):
    return release._stated(path.read_text(), path)


KINDS = {
    "module": Kind(
        json.loads(Card("convpass", {}, (), "b", "f", {}, "0").to_json()), carded, read_card, MODULE, ".safetensors"
    ),
    "adapter": Kind(
        json.loads(AdapterCard("transmiter", {}).to_json()), carded, read_adapter_card, ADAPTER, ".safetensors"
    ),
    "checkpoint": Kind(
        {"optimizer": {}}, lambda about: saved({"vimlight": about, "state_dict": {}}), read_checkpoint,
        CHECKPOINT_VERSION, ".ckpt", must_say=False,
    ),
    "checkpoint of a resumed run": Kind(
        {"optimizer": {}}, lambda about: saved({"vimlight": about}), _resumed, CHECKPOINT_VERSION, ".ckpt",
        must_say=False,
    ),
    "logit cache": Kind(
        json.loads(Manifest("m", "train", ("a",)).to_json()), _manifest, read_manifest, CACHE, "", key="format"
    ),
    "backbone or task of a release": Kind(
        {"task": "cls-a"}, as_json, _card_of_release, release._VERSION, ".safetensors", must_say=False,
    ),
    "results": Kind(
        {"runs": []}, as_json, lambda path: read_results(path.read_bytes(), path.name), 1, ".json", must_say=False,
    ),
    "a result of a comparison": Kind(
        {"value": 0.5}, _summed, lambda path: Results(path.parent).read(path.stem), 1, ".json", must_say=False
    ),
    "what a run leaves": Kind(
        {"torch": "2.9"}, as_json, lambda path: read_versions(path.read_text(), path.name), 1, ".json", must_say=False
    ),
    "index of a shared zoo": Kind(
        {"modules": {}}, as_json, lambda path: Index.from_json(path.read_bytes(), "a zoo"), 1, ".json"
    ),
    "zoo.lock": Kind({"modules": {}}, as_json, read_lock, 1, ".lock"),
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))


@every_kind
def test_all_versions_so_far_are_read(tmp_path, kind):
    for version in range(1, kind.known + 1):
        kind.reading(tmp_path, version)


@every_kind
@pytest.mark.parametrize("ahead", [1, 10**30])
def test_newer_ones_are_refused_with_what_to_upgrade(tmp_path, kind, ahead):
    with pytest.raises(VimlightError) as caught:
        kind.reading(tmp_path, kind.known + ahead)
    newer = f"written by a newer vimlight (format {kind.known + ahead}, this one reads up to {kind.known})"
    assert str(caught.value).endswith(f"{newer}: upgrade vimlight")


@every_kind
@pytest.mark.parametrize("version", ["1", None, True, 1.0, 0, -1, [1], {"a": 1}], ids=repr)
def test_a_version_that_is_none_is_said(tmp_path, kind, version):
    with pytest.raises(VimlightError, match=f"{kind.key} must be a whole number from 1 on, not "):
        kind.reading(tmp_path, version)


@every_kind
def test_files_without_a_version(tmp_path, kind):
    if kind.must_say:
        with pytest.raises(VimlightError, match=f"it does not say its '{kind.key}'; write it again with vimlight"):
            kind.reading(tmp_path, ABSENT)
    else:
        kind.reading(tmp_path, ABSENT)


def test_what_is_written_says_its_version():
    trainer = SimpleNamespace(optimizers=[])
    module = SimpleNamespace(_check_weights=lambda: None, trainer=trainer, device=torch.device("cpu"))
    checkpoint = {}
    TrainableModule.on_save_checkpoint(module, checkpoint)
    assert checkpoint["vimlight"]["format_version"] == CHECKPOINT_VERSION
    assert stamped({})["format_version"] == json.loads(versions_text())["format_version"] == CARD_VERSION == 1
    assert json.loads(Index({}).to_json())["format_version"] == 1
    assert json.loads(Manifest("m", "train", ("a",)).to_json())["format"] == CACHE


def test_what_is_kept_to_be_computed_anew_is_named_by_its_version(monkeypatch, tmp_path):
    """So that another version's is never even looked at: prefix caches, results, what predict has so far."""
    store = Store(tmp_path, 1.0)
    columns = [store.column({"format": version}, 4, 4, torch.float32).path for version in (1, 2)]
    assert len(set(columns)) == 2
    before = key_of({"task": "a"})
    monkeypatch.setattr(vimlight.comparison.store, "__version__", "99.0")
    assert key_of({"task": "a"}) != before
    for name in ("prefix_cache/cache.py", "report/predicted_parts.py"):
        assert '"format": _FORMAT' in (Path(vimlight.__file__).parent / name).read_text()
