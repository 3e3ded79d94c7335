"""Damaged files are refused, or read as they were: never with other numbers, never with a traceback."""

from __future__ import annotations

import hashlib
import random
import shutil
import warnings

import numpy as np
import pytest
import torch
from numerics import shaken
from tiny_training import tiny_backbone
from torch import nn

from tests.interop.tiny_release import release
from vimlight.comparison.store import Store as Results
from vimlight.errors import CacheError, CheckpointError, VimlightError
from vimlight.files.checkpoint_files import CheckpointFiles
from vimlight.files.weight_file import read_weights
from vimlight.interop.modelscope import import_zoo
from vimlight.interop.modelscope.folder import read_zoo
from vimlight.interop.peft import read as read_peft
from vimlight.interop.peft import write as write_peft
from vimlight.plugins import create_plugin
from vimlight.prefix_cache.store import CHUNK, Store
from vimlight.report.predicted_parts import PredictedParts
from vimlight.trainable import read_checkpoint
from vimlight.transmiter import LogitCache, TextHead, TransMiter, load_adapter, write_cache
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.writer import CacheWriter
from vimlight.zoo import Zoo
from vimlight.zoo.card import Card
from vimlight.zoo.files import pack_module, read_head, read_module, sha256_of

KINDS = {}
# So many mutations of each kind in every run.
QUICK = 20


def kind(make):
    """Registers a kind of file: from a directory to its files and what reads them."""
    KINDS[make.__name__] = make
    return make


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"blocks.{n}.down": torch.randn(4, 8, generator=generator) for n in range(3)}


@kind
def module(root):
    path, head = root / "a.safetensors", {"weight": torch.arange(6.0)}
    card = Card("convpass", {"hidden": 4}, ("a",), "vit", "f" * 64, {}, sha256_of(tensors()), sha256_of(head))
    path.write_bytes(pack_module(card, tensors(), head))
    return ["a.safetensors"], lambda: (read_module(path), read_head(path))


@kind
def adapter(root):
    TransMiter(6, 4).save(root / "a.safetensors")

    def read():
        loaded = load_adapter(root / "a.safetensors")
        return vars(loaded.card), loaded.state_dict()

    return ["a.safetensors"], read


@kind
def checkpoint(root):
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    content = {"vimlight": {"class_names": ["a", "b"]}, "state_dict": model.state_dict(), "epoch": 3}
    CheckpointFiles().save_checkpoint({**content, "optimizer_states": [optimizer.state_dict()]}, root / "a.ckpt")
    return ["a.ckpt"], lambda: read_checkpoint(root / "a.ckpt")


@kind
def prefix_chunks(root):
    def column():
        return Store(root, 1.0).column({"what": "a"}, 2 * CHUNK, 16, torch.float32)

    def compute(chunks):
        for rows in chunks:
            yield rows, {"tokens": torch.arange(4.0 * len(rows)).view(-1, 4) + rows[0]}

    def read():
        kept = column()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*it is computed anew")
            kept.fill(compute, range(2 * CHUNK))
        return kept.read(range(2 * CHUNK))

    column().fill(compute, range(2 * CHUNK))
    return [str(path.relative_to(root)) for path in sorted(root.glob("*/0*.safetensors"))], read


@kind
def logit_cache(root):
    generator = torch.Generator().manual_seed(0)
    made = write_cache(
        root / "cache", features=torch.randn(20, 2, 8, generator=generator), model="weak", split="train",
        head=TextHead(torch.randn(4, 8, generator=generator), 10.0, 0.5), class_names=("cat", "dog", "owl"),
        aux_names=("oak",), labels=torch.arange(20) % 3, ids=[f"images/{n}.png" for n in range(20)],
    )  # fmt: skip

    def read():
        cache = LogitCache.open(made.path)
        rows = [cache.logits(), cache.logits([3, 1], view=1), *cache.batches(7), *cache.batches(7, views=1)]
        return rows, cache.labels, list(cache.ids), [cache.ids[2]], cache.class_names, cache.partitions

    return [f"cache/{path.name}" for path in sorted(made.path.iterdir())], read


@kind
def parts_of_a_cache(root):
    """As an interrupted run leaves them; the next one goes on with them."""
    generator, place = torch.Generator().manual_seed(0), root / "new" / "cache"
    rows = torch.randn(20, 1, 4, generator=generator)

    def opened_at(path):
        manifest = Manifest("weak", "train", tuple("abcd"))
        return CacheWriter(path, manifest, ids=[f"{n}.png" for n in range(20)], part_rows=8)

    def fill(writer):
        for part in writer.missing():
            span = writer.part_range(part)
            writer.put(part, rows[span.start : span.stop])
        return writer

    def read():
        # Finished elsewhere: what is looked at stays as it is.
        shutil.copytree(root / "new", root / "other")
        try:
            found = fill(opened_at(root / "other" / "cache")).finish()
            return found.logits(), list(found.ids)
        finally:
            shutil.rmtree(root / "other")

    fill(opened_at(place))
    return [str(path.relative_to(root)) for path in sorted((root / "new").rglob("*.*")) if path.is_file()], read


@kind
def result_of_a_comparison(root):
    results = Results(root)
    results.write("a", {"value": 0.71875, "kind": "classification", "gates": [[0.25, 1e-7]], "modules": ["é", "b"]})
    return ["a.json"], lambda: results.read("a")


@kind
def zoo_with_backbone_and_tasks(root):
    content = release(width=64, depth=1, modules=2, hidden=2, mlp=32, tasks={"cls-pets": 3})
    torch.save(content, root / "pytorch_model.pt")
    import_zoo(root / "pytorch_model.pt", root / "zoo")

    def read():
        found = read_zoo(root / "zoo")
        tasks = {name: [task.gates, task.head, task.labels] for name, task in found.tasks.items()}
        return found.arch, found.backbone, found.modules, tasks

    return [str(path.relative_to(root)) for path in sorted((root / "zoo").rglob("*.safetensors"))], read


@kind
def peft_adapter(root):
    zoo, backbone = Zoo(root / "zoo"), tiny_backbone()
    zoo.add("a", shaken(create_plugin("lora", backbone, rank=2), seed=0))
    write_peft(zoo, "a", root / "peft", backbone)

    def read():
        found = read_peft(root / "peft", backbone).plugin
        return found.settings, found.site_names, found.state_dict()

    return ["peft/adapter_model.safetensors", "peft/adapter_config.json"], read


@kind
def parts_of_predictions(root):
    """As an interrupted run leaves them; what was damaged is predicted again."""
    rows = {place: [{"id": f"{place}.png", "label": "cat", "p_cat": 0.5 + place / 64}] for place in range(16)}
    for first in range(0, 16, 4):
        parts, places = PredictedParts(root / "out.csv", {}), range(first, first + 4)
        parts._written = -float("inf")
        parts.add(places, [rows[place] for place in places])

    def read():
        found = PredictedParts(root / "out.csv", {}).rows
        return dict(sorted((rows | found).items()))

    return [str(path.relative_to(root)) for path in sorted(root.rglob("part-*.json"))], read


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def damaged(content, number):
    """Returns the content after the damage of a number: bits, pieces that are lost or zero, an early end."""
    dice, found = random.Random(number), bytearray(content)
    place = dice.randrange(len(found))
    what = number % 5
    if what in (0, 1):
        for _ in range(1 if what == 0 else 36):
            found[dice.randrange(len(found))] ^= 1 << dice.randrange(8)
    elif what == 2:
        found[place : place + 64] = bytes(len(found[place : place + 64]))
    elif what == 3:
        del found[place : place + dice.choice([1, 8, 64])]
    else:
        found[place:] = b""
    return bytes(found)


def survey(root, name, numbers):
    """Damages each file of a kind in turn; returns how often it was refused, and how often it was read as it was."""
    files, read = KINDS[name](root)
    expected, counts = read(), {"refused": 0, "unharmed": 0, "wordy": 0}
    for number in numbers:
        path = root / files[number % len(files)]
        content = path.read_bytes()
        path.write_bytes(damaged(content, number))
        try:
            assert same(read(), expected), f"damage {number} of {path.name} gives other numbers without a word"
            counts["unharmed"] += 1
        except VimlightError as error:
            lines = len(str(error).splitlines())
            counts["refused" if lines <= 2 else "wordy"] += 1
        path.write_bytes(content)
    return counts


@pytest.mark.parametrize("name", list(KINDS))
def test_damaged_files_are_refused_or_read_as_they_were(tmp_path, name, record_property):
    counts = survey(tmp_path, name, range(QUICK))
    assert counts["refused"] + counts["unharmed"] == QUICK
    record_property("files damaged", QUICK)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("name", list(KINDS))
def test_damaged_files_many_times(tmp_path, name, record_property):
    counts = survey(tmp_path, name, range(QUICK, QUICK + 200))
    assert counts["refused"] + counts["unharmed"] == 200
    record_property("files damaged", 200)


def test_a_checkpoint_that_is_none(tmp_path):
    for content in (b"", b"text\n" * 99, b"PK\x05\x06" + bytes(18)):
        (tmp_path / "a.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint '.*a.ckpt' (is damaged|was not written by)"):
            read_checkpoint(tmp_path / "a.ckpt")
    np.savez(tmp_path / "b.npz", rows=np.ones(2))
    with pytest.raises(CheckpointError, match=r"b.npz' is damaged, or holds more than tensors"):
        read_checkpoint(tmp_path / "b.npz")
    torch.save({"vimlight": {}}, tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match="was not written by vimlight"):
        read_checkpoint(tmp_path / "c.ckpt")


def test_a_block_of_a_large_cache_is_named(tmp_path):
    rows = 6000
    made = write_cache(
        tmp_path / "cache", logits=torch.randn(rows, 100, generator=torch.Generator().manual_seed(0)),
        class_names=[f"c{n}" for n in range(100)], model="weak", split="test",
    )  # fmt: skip
    with (made.path / "logits.npy").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\x01\x02")
    cache = LogitCache.open(made.path)
    assert len(cache.logits(slice(0, 2000))) == 2000, "rows of other blocks are read"
    reads = (lambda: cache.logits([5000]), lambda: list(cache.batches(512)), lambda: cache.stored(slice(4000, 5001)))
    for read in reads:
        with pytest.raises(CacheError, match=r"logits.npy' was altered or damaged after it was written \(block 1 of 3"):
            read()


def test_a_chunk_in_another_chunks_place_is_computed_anew(tmp_path):
    files, read = prefix_chunks(tmp_path)
    expected = read()
    (tmp_path / files[1]).write_bytes((tmp_path / files[0]).read_bytes())
    assert same(read(), expected)


def test_files_without_checksums_are_read(tmp_path):
    """Caches of logits and of prefixes that earlier versions wrote."""
    import json

    from safetensors.torch import load_file

    from vimlight.files.tensor_file import pack
    from vimlight.transmiter.cache.manifest import CHECKSUMS, read_manifest

    _, read = logit_cache(tmp_path)
    expected, path = read(), tmp_path / "cache"
    manifest = read_manifest(path)
    old = manifest.replace(files={name: entry for name, entry in manifest.files.items() if name != CHECKSUMS})
    (path / "manifest.json").write_text(old.to_json())
    (path / CHECKSUMS).unlink()
    assert same(read(), expected)
    assert LogitCache.open(path).verify() == []

    files, read = prefix_chunks(tmp_path / "prefix")
    expected = read()
    for name in files:
        file = tmp_path / "prefix" / name
        file.write_bytes(pack(json.dumps({"types": {"tokens": "float32"}}), load_file(file)))
    assert same(read(), expected)


@pytest.mark.parametrize("label", [77, 3, -1, 2**40])
def test_labels_of_no_class_are_refused(tmp_path, label):
    """In a cache whose checksums are right, as somebody else may have written it."""
    from vimlight.transmiter.cache.manifest import CHECKSUMS, FileEntry, read_manifest

    logit_cache(tmp_path)
    path, labels = tmp_path / "cache", np.arange(20) % 3
    labels[7] = label
    np.save(path / "labels.npy", labels)
    manifest, content = read_manifest(path), (path / "labels.npy").read_bytes()
    files = {name: entry for name, entry in manifest.files.items() if name != CHECKSUMS}
    files["labels.npy"] = FileEntry(len(content), hashlib.sha256(content).hexdigest())
    (path / "manifest.json").write_text(manifest.replace(files=files).to_json())
    (path / CHECKSUMS).unlink()
    with pytest.raises(CacheError, match=rf"labels.npy has label {label} in row 7, which is not among the 3 task"):
        LogitCache.open(path).labels  # noqa: B018


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_checkpoint(path),
        lambda path: read_weights(path),
        lambda path: read_module(path),
        lambda path: load_adapter(path),
    ],
    ids=["checkpoint", "weights", "module", "adapter"],
)
def test_a_directory_is_no_file(tmp_path, read):
    place = tmp_path / "a.safetensors"
    place.mkdir()
    with pytest.raises(VimlightError, match=r"a.safetensors' is a directory, not a file$"):
        read(place)
    (place / "last.ckpt").touch()
    with pytest.raises(VimlightError, match="is a directory, not a file"):
        read(place)


def test_a_directory_of_checkpoints_names_one(tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(CheckpointError, match=r"is a directory, not a file; did you mean '.*last.ckpt'\?"):
        read_checkpoint(tmp_path)


def test_results_without_checksums_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"value": 0.5}')
    assert Results(tmp_path).read("a") == {"value": 0.5}
