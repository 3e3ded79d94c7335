"""Everything in the package that writes files, each with what stood before, and with how what is there now is read."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from numerics import shaken
from safetensors.torch import load_file
from tiny_training import tiny_backbone

from tests.interop.tiny_release import release
from vimlight.commands.new import main as new
from vimlight.comparison.results import write_results
from vimlight.comparison.store import Store as Results
from vimlight.deployment.deployed import Deployed
from vimlight.deployment.formats import Format, Packed
from vimlight.deployment.registry import FORMATS
from vimlight.errors import CacheError, ConfigError
from vimlight.files.atomic import write_whole
from vimlight.files.checkpoint_files import CheckpointFiles, load_checkpoint_file
from vimlight.interop.modelscope import export_zoo, import_zoo
from vimlight.interop.peft.writing import write as write_peft
from vimlight.plugins import create_plugin
from vimlight.prefix_cache.store import CHUNK, Store
from vimlight.report.predicted_parts import PredictedParts
from vimlight.report.predictions import PredictionWriter
from vimlight.tasks import create_task
from vimlight.transmiter import LogitCache, TextHead, TransMiter, load_adapter, write_cache
from vimlight.transmiter.cache.derive import with_head
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.merge import merge_caches
from vimlight.transmiter.cache.writer import CacheWriter
from vimlight.zoo import Zoo
from vimlight.zoo.sharing import missing_here, open_place, pull, push
from vimlight.zoo.signing import keep_signature

WRITERS: dict[str, Callable[[Path], Writer]] = {}
NEXT = "next.txt"


class Writer(NamedTuple):
    """Something that writes files.

    Attributes:
        write: Writes; told whether what is there is whole, which then may be replaced.
        read: Returns what stands there, thing by thing, by the means of those who use it. Each of the things is what
            stood before or what was to come; what is not there is left out.
        may_go: Things of two files, which cannot be replaced in one step: for a moment they are not there.
    """

    write: Callable[[bool], object]
    read: Callable[[], dict[str, Any]]
    may_go: tuple[str, ...] = ()


def writer(make: Callable[[Path], Writer]) -> Callable[[Path], Writer]:
    """Registers a writer: from a directory, in which it puts what stood before."""
    WRITERS[make.__name__] = make
    return make


@functools.cache
def backbone():
    return tiny_backbone()


@functools.cache
def plugin(seed, kind="convpass"):
    return shaken(create_plugin(kind, backbone()), 0.2, seed)


def head(seed):
    return {"weight": torch.randn(3, 64, generator=torch.Generator().manual_seed(seed))}


def modules(path):
    """Returns the modules of a zoo with their heads, without the days on which they were written."""
    zoo = Zoo(path)
    if not zoo.path.exists():
        return {}
    assert zoo.verify() == []
    found = {}
    for name in zoo:
        card, tensors = zoo.read(name)
        found[name] = [card.sha256, tensors, zoo.load_head(name) if card.head else None]
    return found


def next_one(root):
    """Writes something else in the same place, as whoever comes next."""
    write_whole(root / NEXT, "", overwrite=True)


def tensors(*paths):
    """Returns the tensors of files that are there; the order of what is in their headers is any."""
    return {path.name: load_file(path) for path in paths if path.exists()}


def files(root, *names):
    """Returns the contents of files that are there."""
    return {name: (root / name).read_bytes() for name in names if (root / name).exists()}


@writer
def module(root):
    add = functools.partial(Zoo(root / "zoo").add, "a", plugin(0), {"task": "classification"}, head(0))
    return Writer(lambda whole: add(overwrite=whole), lambda: modules(root / "zoo"))


@writer
def module_replaced(root):
    zoo = Zoo(root / "zoo")
    zoo.add("a", plugin(0), {}, head(0))
    zoo.add("b", plugin(1))
    return Writer(lambda _: zoo.add("a", plugin(2), {}, head(2), overwrite=True), lambda: modules(zoo.path))


@writer
def module_signed(root):
    zoo = Zoo(root / "zoo")
    zoo.add("a", plugin(0))
    read = functools.partial(files, zoo.path, "a.sig")
    return Writer(lambda _: keep_signature(zoo, "a", "-----BEGIN SSH SIGNATURE-----"), read)


@writer
def module_removed(root):
    zoo = Zoo(root / "zoo")
    zoo.add("a", plugin(0), {}, head(0))
    return Writer(lambda whole: next_one(zoo.path) if whole else zoo.remove("a"), lambda: modules(zoo.path))


@writer
def modules_exported(root):
    zoo = Zoo(root / "zoo")
    for number, name in enumerate("ab"):
        zoo.add(name, plugin(number), {}, head(number))

    def write(_):
        other = Zoo(root / "other")
        missing = [name for name in zoo if name not in other]
        zoo.export(missing, other.path) if missing else next_one(other.path)

    return Writer(write, lambda: modules(root / "other"))


@writer
def modules_pulled(root):
    _shared(root)
    return Writer(lambda _: _take(root), lambda: modules(root / "other"))


@writer
def modules_pushed(root):
    """Into a directory that has one of them, and an index of it."""
    zoo = _shared(root)
    zoo.add("b", plugin(1))
    place = open_place(str(root / "shared"))

    def read():
        # What an index names is whole.
        found = {name: entry.sha256 for name, entry in place.index().modules.items()}
        assert all(hashlib.sha256((root / "shared" / f"{name}.safetensors").read_bytes()).hexdigest() == sha256
                   for name, sha256 in found.items())  # fmt: skip
        return found

    return Writer(lambda _: push(zoo, place), read)


def _shared(root):
    zoo = Zoo(root / "zoo")
    zoo.add("a", plugin(0), {}, head(0))
    push(zoo, open_place(str(root / "shared")))
    return zoo


def _take(root):
    zoo, place = Zoo(root / "other"), open_place(str(root / "shared"))
    pull(zoo, place, missing_here(zoo, place.index().chosen([], place.url)))


@writer
def adapter(root):
    return _adapter(root / "a.safetensors")


@writer
def adapter_replaced(root):
    TransMiter(6, 4).save(root / "a.safetensors")
    return _adapter(root / "a.safetensors", replace=True)


def _adapter(path, replace=False):
    new = shaken(TransMiter(6, 4), 0.2, 1)

    def read():
        return {"adapter": load_adapter(path).state_dict()} if path.exists() else {}

    return Writer(lambda whole: new.save(path, overwrite=whole or replace), read)


@writer
def checkpoint(root):
    return _checkpoint(root / "last.ckpt")


@writer
def checkpoint_replaced(root):
    CheckpointFiles().save_checkpoint({"state_dict": head(0), "epoch": 1}, root / "last.ckpt")
    return _checkpoint(root / "last.ckpt")


def _checkpoint(path):
    def write(_):
        # Where that is another file system, what is made there cannot be renamed.
        os.environ["TMPDIR"] = "/dev/shm"
        CheckpointFiles().save_checkpoint({"state_dict": head(1), "epoch": 2}, path)

    return Writer(write, lambda: {"checkpoint": load_checkpoint_file(path)} if path.exists() else {})


def features(seed, ids=range(20)):
    """Returns what `write_cache` takes: random features of 2 views of images of 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "features": torch.randn(20, 2, 8, generator=generator), "model": "weak", "split": "train",
        "head": text_head(seed), "class_names": ("cat", "dog", "owl"), "labels": torch.arange(20) % 3,
        "ids": [f"images/{number}.png" for number in ids],
    }  # fmt: skip


def text_head(seed):
    return TextHead(torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)), 10.0, 0.5)


def caches(*paths):
    """Returns all that caches say, for those that are there."""
    found = {}
    for path in paths:
        try:
            cache = LogitCache.open(path)
        except CacheError:
            # There is none, not even half of one.
            assert not path.exists()
            continue
        assert cache.verify() == []
        found[path.name] = [cache.logits(), cache.logits(view=1), cache.labels, list(cache.ids), cache.class_names]
    return found


@writer
def cache(root):
    return Writer(
        lambda whole: write_cache(root / "new" / "cache", **features(0), overwrite=whole),
        lambda: caches(root / "new" / "cache"),
    )


@writer
def cache_replaced(root):
    write_cache(root / "cache", **features(0))
    return Writer(lambda _: write_cache(root / "cache", **features(1), overwrite=True), lambda: caches(root / "cache"))


@writer
def cache_in_parts(root):
    return _parts(root / "cache")


@writer
def cache_in_parts_replaced(root):
    write_cache(root / "cache", **features(0))
    return _parts(root / "cache", replace=True)


def _parts(path, replace=False):
    def write(whole):
        made = features(3)
        manifest = Manifest("weak", "train", made["class_names"], width=8, dtype="float16", views=2)
        out = CacheWriter(
            path, manifest, ids=made["ids"], labels=made["labels"], part_rows=8, overwrite=whole or replace
        )
        for part in out.missing():
            rows = out.part_range(part)
            out.put(part, made["features"][rows.start : rows.stop])
        out.finish(made["head"])

    return Writer(write, lambda: caches(path))


@writer
def cache_with_another_head(root):
    old = write_cache(root / "old", **features(0))
    return Writer(
        lambda whole: with_head(old, root / "new", text_head(5), overwrite=whole),
        lambda: caches(root / "old", root / "new"),
    )


@writer
def caches_merged(root):
    old = [write_cache(root / f"old{n}", **features(0, range(20 * n, 20 * n + 20))) for n in range(2)]
    return Writer(
        lambda whole: merge_caches(old, root / "new", overwrite=whole),
        lambda: caches(root / "old0", root / "old1", root / "new"),
    )


def _column(root, what, gigabytes=1.0):
    return Store(root / "prefix", gigabytes).column({"what": what}, 2 * CHUNK, 16, torch.float32)


def _fill(column):
    def compute(chunks):
        for rows in chunks:
            yield rows, {"tokens": torch.arange(4.0 * len(rows)).view(-1, 4) + rows[0]}

    column.fill(compute, range(2 * CHUNK))


def _chunks(root, what):
    column, found = _column(root, what), {}
    with warnings.catch_warnings():
        # Nothing that is damaged is there.
        warnings.simplefilter("error")
        for number in range(2):
            if column._has(number):
                found[f"{what} {number}"] = column.read(range(number * CHUNK, number * CHUNK + CHUNK))
    return found


@writer
def prefix_cache(root):
    return Writer(lambda _: _fill(_column(root, "a")), lambda: _chunks(root, "a"))


@writer
def prefix_cache_that_makes_room(root):
    _fill(_column(root, "old"))
    return Writer(
        lambda _: _fill(_column(root, "new", 3000e-9)), lambda: {**_chunks(root, "old"), **_chunks(root, "new")}
    )


@writer
def result(root):
    store = Results(root / "results")
    store.write("b", {"value": 1.0})

    def write(_):
        store.write("a", {"value": 0.5})
        store.write("b", {"value": 0.25})

    return Writer(write, lambda: {key: found for key in "ab" if (found := store.read(key))})


@writer
def tables(root):
    names = ("results.json", "table.md", "table.csv")
    for name in names:
        write_whole(root / name, "old")
    plan = SimpleNamespace(title="Tables")
    compared = SimpleNamespace(
        study=SimpleNamespace(folder=root, plan=plan), records=[], tables=[], summaries=[], missing=0,
        reference="none",
    )
    return Writer(lambda _: write_results(compared), lambda: files(root, *names))


@writer
def text(root):
    """As tables, curves, samples, reports, configs and contact sheets are written."""
    return Writer(
        lambda whole: write_whole(root / "new" / "a.csv", "name,value\n" * 50, overwrite=whole),
        lambda: files(root, "new/a.csv"),
    )


@writer
def export(root):
    """With a format of this test's own, since only the writing is looked at."""
    chosen = Format(".pt2", "file", lambda *_: Packed(b"graph" * 100, lambda _: None))
    deployed = SimpleNamespace(check=lambda *_: 0.0)

    def write(whole):
        FORMATS._entries["torch_export"] = chosen
        Deployed.save(deployed, root / "a.pt2", overwrite=whole)

    return Writer(write, lambda: files(root, "a.pt2"))


@writer
def predictions(root):
    return _predictions(root)


@writer
def predictions_replaced(root):
    _predict(root, 0, True)
    return _predictions(root)


def _predictions(root):
    def read():
        table = root / "new" / "found.csv"
        if not table.exists():
            return {}
        named = [line.split(",")[-1] for line in table.read_text().splitlines()[1:]]
        return {"table and masks": [table.read_bytes(), files(root / "new", *named)]}

    return Writer(lambda _: _predict(root, 1, True), read, may_go=("table and masks",))


def _predict(root, seed, overwrite):
    task = create_task({"kind": "segmentation", "width": 8}, ("ground", "thing"))
    model = SimpleNamespace(task=task, predict_step=lambda batch: None)
    alone = SimpleNamespace(barrier=lambda: None, broadcast=lambda value: value)
    trainer = SimpleNamespace(is_global_zero=True, num_predict_batches=[1], global_rank=0, world_size=1, strategy=alone)
    out = PredictionWriter(str(root / "new" / "found.csv"), overwrite=overwrite)
    out.setup(trainer, model, "predict")
    masks = torch.randint(0, 2, (2, 6, 6), generator=torch.Generator().manual_seed(seed))
    found = {"id": ["x/1.png", "x/2.png"], "size": torch.tensor([[6, 6], [6, 6]]), "prediction": masks.to(torch.uint8)}
    try:
        out.write_on_batch_end(trainer, model, found, None, {}, 0, 0)
        out.write_on_epoch_end(trainer, model, [found], [[[0, 1]]])
    except ConfigError as error:
        # As the trainer does.
        out.on_exception(trainer, model, error)
        raise


@writer
def predictions_in_parts(root):
    """What a run of a new plan has so far, beside that of an older one, which goes."""
    rows = {place: [{"id": f"{place}.png", "label": "cat"}] for place in range(4)}
    _keep(root, "old", rows)

    def read():
        return {part.parent.name: [part.read_bytes()] for part in root.glob(".out.csv.partial/*/part-*.json")}

    return Writer(lambda _: _keep(root, "new", rows), read)


def _keep(root, plan, rows):
    parts = PredictedParts(root / "out.csv", {"plan": plan})
    parts._written = -float("inf")
    parts.add(list(rows), list(rows.values()))


@writer
def own_package(root):
    return _own_package(root)


@writer
def own_package_grown(root):
    new(["plugin", "first", "--to", str(root / "own")])
    return _own_package(root)


def _own_package(root):
    project = root / "own" / "pyproject.toml"

    def read():
        if not (root / "own").exists():
            return {}
        named = [f"own/{name}.py" for name in ("first", "second") if f'{name} = "' in project.read_text()]
        found = files(root / "own", "pyproject.toml", *named)
        assert found.keys() >= set(named), "it announces what is not there"
        return found

    def write(whole):
        next_one(root) if whole else new(["plugin", "second", "--to", str(root / "own")])

    return Writer(write, read)


@writer
def peft_adapter(root):
    zoo = Zoo(root / "zoo")
    zoo.add("a", plugin(0, "lora"))
    to = root / "peft"

    def read():
        config, weights = to / "adapter_config.json", to / "adapter_model.safetensors"
        return {"adapter": [config.read_bytes(), load_file(weights)]} if to.exists() else {}

    return Writer(lambda whole: next_one(root) if whole else write_peft(zoo, "a", to, backbone()), read)


@functools.cache
def released():
    content = io.BytesIO()
    torch.save(release(width=64, depth=1, modules=2, hidden=2, mlp=32, tasks={"cls-pets": 3}), content)
    return content.getvalue()


@writer
def zoo_of_a_released_checkpoint(root):
    (root / "pytorch_model.pt").write_bytes(released())
    zoo = root / "zoo"

    def read():
        config = files(zoo, "backbone/config.yaml")
        return {"zoo": [modules(zoo), tensors(*zoo.glob("*/*.safetensors")), config]} if zoo.exists() else {}

    return Writer(lambda whole: next_one(root) if whole else import_zoo(root / "pytorch_model.pt", zoo), read)


@writer
def released_checkpoint(root):
    (root / "old.pt").write_bytes(released())
    import_zoo(root / "old.pt", root / "zoo")
    return Writer(
        lambda whole: next_one(root) if whole else export_zoo(root / "zoo", root / "pytorch_model.pt"),
        lambda: files(root, "pytorch_model.pt"),
    )
