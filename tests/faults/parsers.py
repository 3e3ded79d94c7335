"""Every parser of files that others wrote, with a tiny file that it reads: what `test_fuzz.py` goes through.

A new reader needs a function here: it writes what belongs together into a folder, and returns the file that is changed
and how all of it is read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_boxes import voc_object, write_coco, write_voc
from tiny_layouts import write_coop, write_image, write_vtab, write_webdataset
from tiny_training import tiny_backbone
from torch import nn

from tests.pages.tiny_results import config as run_settings
from tests.pages.tiny_results import write_comparison, write_evaluation, write_fit, write_wandb
from vimlight.commands.own_package import OwnPackage
from vimlight.comparison.reading import read_any
from vimlight.data.boxes import read_coco, read_voc
from vimlight.data.sources import load_source
from vimlight.data.sources.fashion_mnist import read_idx
from vimlight.data.tables import FileTable
from vimlight.data.target_files import FieldFiles, MaskFiles
from vimlight.deployment.run import _model_settings
from vimlight.errors import DataError
from vimlight.files.checkpoint_files import CheckpointFiles
from vimlight.files.tensor_file import pack
from vimlight.files.weight_file import read_weights
from vimlight.interop.peft import read as read_peft
from vimlight.interop.peft import write as write_peft
from vimlight.interop.peft.config import CONFIG, WEIGHTS, read_settings
from vimlight.pages import build_report
from vimlight.plugins import create_plugin
from vimlight.trainable import read_checkpoint
from vimlight.transmiter import LogitCache, TextHead, TransMiter, load_adapter, write_cache
from vimlight.transmiter.cache.manifest import MANIFEST, _canonical
from vimlight.transmiter.cache.names import STARTS, TEXT
from vimlight.transmiter.cache.tables import read_array, read_labels, read_names
from vimlight.transmiter.models.templates import templates_of
from vimlight.transmiter.models.vocabulary import word_list
from vimlight.zoo import Zoo
from vimlight.zoo.files import read_head, read_module
from vimlight.zoo.sharing import INDEX, LOCK, open_place, push, read_lock, write_lock
from vimlight.zoo.signing import signature_of


class Parser(NamedTuple):
    """A file and what reads it.

    Attributes:
        file: The file that is changed.
        read: Reads it, and what it stands for.
        plain: What the file says, as JSON has it, where that can be changed too; else nothing.
        says_alone: Whether that alone is changed, and no bytes of the file.
    """

    file: Path
    read: Callable[[], Any]
    plain: Any = None
    says_alone: bool = False


PARSERS: dict[str, Callable[[Path], Parser]] = {}


def parser(make):
    """Registers a parser under its function's name: from an empty folder to a file that is whole."""
    PARSERS[make.__name__] = make
    return make


def written(file, content, read, plain=None):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Parser(file, lambda: read(file), plain)


def as_json(file, content, read):
    return written(file, json.dumps(content), read, content)


def table(*rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


@parser
def manifest(root):
    for name in ("0.png", "1.png"):
        write_image(root / name, (4, 4), (9, 9, 9))
    content = table(["path", "label", "split"], ["0.png", "cat|dog", "train"], ["1.png", "dog", "test"])
    return written(root / "all.csv", content, lambda file: load_source("manifest", {"path": str(file)}))


@parser
def manifest_of_numbers(root):
    write_image(root / "0.png", (4, 4), (9, 9, 9))
    arguments = {"path": str(root / "all.csv"), "number_columns": ["x", "y"]}
    content = table(["path", "x", "y"], ["0.png", "1.5", "-2e3"])
    return written(root / "all.csv", content, lambda _: load_source("manifest", arguments))


@parser
def logits_csv(root):
    return written(root / "z.csv", table(["id", "cat", "label"], ["a", 1.5, "cat"], ["b", -2, "dog"]), read_array)


@parser
def labels_csv(root):
    return written(root / "l.csv", table(["id", "label"], ["a", "cat"], ["b", "dog"]), read_labels)


@parser
def names(root):
    return written(root / "names.txt", "cat\ndog, hound\n\u4eba\n", read_names)


@parser
def words(root):
    return written(root / "words.txt", "cat, tabby\ndog\n\u4eba\n", word_list)


@parser
def templates(root):
    return written(root / "t.txt", "a photo of a {c}.\nthe {c}\n", lambda file: templates_of(str(file)))


@parser
def mask_classes(root):
    write_image(root / "images" / "0.png", (4, 4), (9, 9, 9))
    (root / "masks").mkdir()
    Image.new("L", (4, 4)).save(root / "masks" / "0.png")
    return written(root / "classes.txt", "sky\nroad\n", lambda _: load_source("mask_folder", {"root": str(root)}))


@parser
def vtab_list(root):
    folder = write_vtab(root, "svhn", size=(4, 4))
    content = (folder / "test.txt").read_bytes()
    return written(folder / "test.txt", content, lambda _: load_source("vtab1k", {"root": str(root), "task": "svhn"}))


def of_coop(root, dataset, name, **arguments):
    folder = write_coop(root, dataset, classes=2, train=1, val=1, test=1, size=(4, 4))
    content, given = (folder / name).read_bytes(), {"root": str(root), "dataset": dataset, **arguments}
    plain = json.loads(content) if name.endswith(".json") else None
    return written(folder / name, content, lambda _: load_source("coop", given), plain)


@parser
def coop_split(root):
    return of_coop(root, "oxford_pets", "split_zhou_OxfordPets.json")


@parser
def coop_aircraft(root):
    return of_coop(root, "fgvc_aircraft", "images_variant_train.txt")


@parser
def coop_imagenet(root):
    return of_coop(root, "imagenet", "classnames.txt")


@parser
def coop_sample(root):
    write_coop(root, classes=2, train=1, val=1, test=1, size=(4, 4))
    given = {"root": str(root), "dataset": "oxford_pets", "shots": 1, "sample": str(root / "sample.json")}
    load_source("coop", given)
    content = json.loads((root / "sample.json").read_bytes())
    return as_json(root / "sample.json", content, lambda _: load_source("coop", given))


@parser
def coco(root):
    file = write_coco(root, count=2, annotations=None)
    content = json.loads(file.read_bytes())
    content["images"][0] |= {"height": None}
    return as_json(file, content, lambda _: read_coco(file, root / "train", skip_degenerate=True))


@parser
def voc(root):
    write_voc(root, {"train": [[voc_object("dog", (1, 1, 9, 9))]]})
    file = root / "Annotations" / "train_0.xml"
    return written(file, file.read_bytes(), lambda _: read_voc(root, "train", skip_degenerate=True))


@parser
def voc_list(root):
    write_voc(root, {"train": [[voc_object("dog", (1, 1, 9, 9))]]})
    file = root / "ImageSets" / "Main" / "train.txt"
    return written(file, file.read_bytes(), lambda _: read_voc(root, "train"))


def of_webdataset(root, name, labels=(0, 1, 2)):
    write_webdataset(root, {"train": list(labels)}, names=("cat", "dog", "owl"), suffix="png")
    given = {"root": str(root), "test": None}
    return written(root / name, (root / name).read_bytes(), lambda _: load_source("webdataset", given).train.image(0))


@parser
def webdataset_shard(root):
    return of_webdataset(root, "train/0.tar")


@parser
def webdataset_flags(root):
    return of_webdataset(root, "train/0.tar", ([0, 1, 0], [1, 1, 0]))


@parser
def webdataset_count(root):
    return of_webdataset(root, "train/nshards.txt")


@parser
def webdataset_kind(root):
    return of_webdataset(root, "dataset_type.txt", ([0, 1, 0], [1, 1, 0]))


@parser
def idx(root):
    content = gzip.compress(struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3) + bytes(6), mtime=0)
    return written(root / "pixels.gz", content, lambda _: read_idx(root / "pixels"))


def png(array, **options):
    content = io.BytesIO()
    Image.fromarray(array).save(content, "png", **options)
    return content.getvalue()


@parser
def image(root):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    content = png(pixels, dpi=(72, 72), exif=Image.Exif())
    return written(root / "a.png", content, lambda file: FileTable([file], torch.zeros(1), root).image(0))


@parser
def mask(root):
    return written(root / "a.png", png(np.eye(5, dtype=np.uint8)), lambda file: MaskFiles([file], 2)[0])


@parser
def map_png(root):
    return written(root / "a.png", png(np.eye(5, dtype=np.uint16)), lambda file: FieldFiles([file])[0])


@parser
def map_npy(root):
    content = io.BytesIO()
    np.save(content, np.eye(5))
    return written(root / "a.npy", content.getvalue(), lambda file: FieldFiles([file])[0])


@parser
def map_npz(root):
    content = io.BytesIO()
    np.savez_compressed(content, depth=np.eye(5, dtype=np.float32))
    return written(root / "a.npz", content.getvalue(), lambda file: FieldFiles([file])[0])


@parser
def logits_npy(root):
    content = io.BytesIO()
    np.save(content, np.eye(3, dtype=np.float32))
    return written(root / "a.npy", content.getvalue(), read_array)


@parser
def logits_npz(root):
    content = io.BytesIO()
    np.savez(content, rows=np.eye(3, dtype=np.float32))
    return written(root / "a.npz", content.getvalue(), read_array)


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@parser
def logits_pt(root):
    """What `torch.save` wrote of plain values; they are changed as JSON has them."""
    plain = {"labels": [0, 1, 0], "label_names": ["cat", "dog"], "base": [0], "novel": [1], "weak_logits": None}

    def read():
        content = json.loads((root / "z.json").read_bytes())
        if isinstance(content, dict):
            for key in ("weak_logits", "labels"):
                content[key] = torch.ones(3, 2) if content.get(key, 0) is None else content.get(key)
        (root / "z.pt").write_bytes(saved(content))
        return read_array(root / "z.pt")

    (root / "z.json").write_text(json.dumps(plain))
    return Parser(root / "z.json", read, plain, says_alone=True)


@parser
def weights(root):
    content = saved({"state_dict": {"module.a": torch.ones(2, 3), "b": torch.arange(4)}})
    return written(root / "a.pth", content, read_weights)


@parser
def weights_safetensors(root):
    return written(root / "a.safetensors", pack("{}", {"a": torch.ones(2, 3)}), read_weights)


@parser
def checkpoint(root):
    content = {"vimlight": {"class_names": ["a"]}, "state_dict": {"a": torch.ones(3)}, "epoch": 3}
    CheckpointFiles().save_checkpoint(content, root / "a.ckpt")
    return written(root / "a.ckpt", (root / "a.ckpt").read_bytes(), read_checkpoint)


def of_module(root):
    backbone = tiny_backbone()
    Zoo(root / "zoo").add("a", create_plugin("convpass", backbone, hidden=2), head=nn.Linear(3, 2).state_dict())
    return root / "zoo" / "a.safetensors", backbone


@parser
def module(root):
    file, _ = of_module(root)
    return written(file, file.read_bytes(), lambda _: (read_module(file), read_head(file)))


@parser
def zoo_index(root):
    of_module(root)
    place = open_place(str(root / "shared"))
    push(Zoo(root / "zoo"), place)
    return as_json(root / "shared" / INDEX, json.loads((root / "shared" / INDEX).read_bytes()), lambda _: place.index())


@parser
def zoo_lock(root):
    of_module(root)
    push(Zoo(root / "zoo"), open_place(str(root / "shared")))
    write_lock(Zoo(root / "zoo"), ["a"], root / LOCK)
    return as_json(root / LOCK, json.loads((root / LOCK).read_bytes()), read_lock)


@parser
def zoo_signature(root):
    text = "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
    return written(root / "a.sig", text, lambda _: signature_of(Zoo(root), "a"))


def recarded(file, card):
    """Gives a file of tensors another card, whose checksum is right, or none."""
    from safetensors.torch import load_file, save

    tensors = load_file(file)
    file.write_bytes(save(tensors) if card is None else pack(card, tensors))


@parser
def module_card(root):
    """A card that somebody forged, with the checksums that belong to it."""
    file, backbone = of_module(root)
    plain = vars(Zoo(root / "zoo").card("a"))
    content = json.loads(json.dumps(plain))

    def read(card):
        recarded(file, card.read_bytes().decode(errors="replace"))
        return Zoo(root / "zoo").load("a", backbone)

    return as_json(root / "card.json", content, read)


@parser
def adapter(root):
    TransMiter(4, 2).save(root / "a.safetensors")
    return written(root / "a.safetensors", (root / "a.safetensors").read_bytes(), load_adapter)


@parser
def adapter_card(root):
    made = TransMiter(4, 2).describe(class_names=["cat", "dog"], aux_names=["oak", "elm"], model="weak")
    made.save(root / "a.safetensors")

    def read(card):
        recarded(root / "a.safetensors", card.read_bytes().decode(errors="replace"))
        return load_adapter(root / "a.safetensors")

    return as_json(root / "card.json", json.loads(made.card.to_json()), read)


def of_cache(root):
    generator = torch.Generator().manual_seed(0)
    return write_cache(
        root / "cache", features=torch.randn(4, 1, 3, generator=generator), model="weak", split="train",
        head=TextHead(torch.randn(3, 3, generator=generator), 10.0, 0.5), class_names=("cat", "dog"),
        aux_names=("oak",), labels=torch.arange(4) % 2, ids=[f"{n}.png" for n in range(4)],
        partitions={"base": [0], "novel": [1]},
    )  # fmt: skip


def everything(cache):
    opened = LogitCache.open(cache)
    return opened.logits(), opened.labels, list(opened.ids), opened.ids[1], opened.partitions


@parser
def cache_manifest(root):
    path = of_cache(root).path
    return written(path / MANIFEST, (path / MANIFEST).read_bytes(), lambda _: everything(path))


@parser
def cache_manifest_forged(root):
    """A manifest that somebody wrote, with the hash that belongs to it."""
    path = of_cache(root).path
    plain = json.loads((path / MANIFEST).read_bytes())

    def read(file):
        content = json.loads(file.read_bytes())
        if isinstance(content, dict):
            content = {**content, "hash": hash_of(content)}
        (path / MANIFEST).write_text(json.dumps(content))
        return everything(path)

    return as_json(root / "forged.json", plain, read)._replace(says_alone=True)


def hash_of(content):
    rest = {key: value for key, value in content.items() if key not in ("format", "hash")}
    return hashlib.sha256(_canonical(rest)).hexdigest()


def of_cache_file(root, name):
    """A file of a cache that somebody wrote, with the size and hash that belong to it."""
    path = of_cache(root).path

    def read(file):
        content = file.read_bytes()
        stated = json.loads((path / MANIFEST).read_bytes())
        stated["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if name != "checksums.json":
            stated["files"].pop("checksums.json", None)
        (path / MANIFEST).write_text(json.dumps({**stated, "hash": hash_of(stated)}))
        return everything(path)

    plain = json.loads((path / name).read_bytes()) if name.endswith(".json") else None
    return written(path / name, (path / name).read_bytes(), read, plain)


@parser
def cache_checksums(root):
    return of_cache_file(root, "checksums.json")


@parser
def cache_labels(root):
    return of_cache_file(root, "labels.npy")


@parser
def cache_features(root):
    return of_cache_file(root, "features.npy")


@parser
def cache_head(root):
    return of_cache_file(root, "head.npy")


@parser
def cache_id_texts(root):
    return of_cache_file(root, TEXT)


@parser
def cache_id_starts(root):
    return of_cache_file(root, STARTS)


@parser
def peft_config(root):
    plain = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["qkv"], "rank_pattern": {"qkv": 3},
        "layers_to_transform": [0, 1], "bias": "none", "modules_to_save": ["head"],
    }  # fmt: skip
    return as_json(root / CONFIG, plain, lambda _: read_settings(root))


def of_peft(root):
    zoo, backbone = Zoo(root / "zoo"), tiny_backbone()
    zoo.add("a", create_plugin("lora", backbone, rank=2))
    write_peft(zoo, "a", root / "peft", backbone)
    return root / "peft" / WEIGHTS, lambda file: read_peft(file.parent, backbone)


@parser
def peft_weights_of_a_zoo(root):
    file, read = of_peft(root)
    return written(file, file.read_bytes(), read)


@parser
def peft_weights(root):
    """As PEFT writes them, without a word on where they come from."""
    file, read = of_peft(root)
    recarded(file, None)
    return written(file, file.read_bytes(), read)


def of_yaml(file, plain, read):
    return written(file, yaml.safe_dump(plain), lambda _: read(file), plain)


@parser
def plan(root):
    plain = {
        "backbone": "vit_tiny_patch16_224", "plugin": {"kind": "convpass", "hidden": 2},
        "midstream": [{"name": "mid", "dataset": "digits", "epochs": 1}],
        "downstream": [{"name": "down", "dataset": "digits", "shots": [1, "full"], "without": []}],
        "methods": ["none", {"gates": {"how": "ens_moe"}}], "shots": [1], "seeds": [0, 1], "reference": "none",
    }  # fmt: skip
    return of_yaml(root / "plan.yaml", plain, read_any)


@parser
def run_config(root):
    plain = {"model": {"class_path": "MidstreamModule", "init_args": {"backbone": "vit"}}, "seed_everything": 0}
    return of_yaml(root / "config.yaml", plain, _model_settings)


def reported(file, changed, plain=None):
    """A file of a run of which a report is made: it is read, and all that it says is shown."""
    return Parser(changed, lambda: build_report([file]).render(), plain)


@parser
def report_log(root):
    file = write_fit(root / "run")
    return reported(file, file)


@parser
def report_config(root):
    file = write_fit(root / "run")
    return reported(file, file.with_name("config.yaml"), run_settings())


def table_of_run(name, root):
    file = write_fit(root / "run")
    return reported(file, file.with_name(name))


@parser
def report_predictions(root):
    """With the image that it says was taken for another class."""
    file = write_fit(root / "run")
    write_image(root / "0.png", (4, 4), (9, 9, 9))
    config = run_settings()
    config["data"]["init_args"]["dataset_args"] = {"root": str(root)}
    file.with_name("config.yaml").write_text(yaml.safe_dump(config))
    content = table(["id", "true", "predicted", "probability"], ["0.png", "cat", "cat 2", 0.75])
    return reported(file, written(file.with_name("val_predictions.csv"), content, None).file)


@parser
def report_wandb(root):
    file = write_wandb(root / "run")
    return reported(file, file)


@parser
def report_wandb_table(root):
    file = write_wandb(root / "run")
    table = root / "run" / "files" / "media" / "0.table.json"
    return reported(file, table, json.loads(table.read_text()))


def said_by_run(name, root):
    file = write_fit(root / "run")
    return reported(file, file.with_name(name), json.loads(file.with_name(name).read_text()))


PARSERS |= {f"report_{name}": partial(said_by_run, f"{name}.json") for name in ("summary", "artifacts", "versions")}
PARSERS |= {
    f"report_{name}": partial(table_of_run, f"{prefix}{name}.csv")
    for prefix, names in (("", ("gates", "ranking")), ("val_", ("confusion", "reliability", "precision_recall")))
    for name in names
}


@parser
def report_comparison(root):
    file = write_comparison(root)
    return reported(file, file, json.loads(file.read_text()))


@parser
def report_evaluation(root):
    file = write_evaluation(root)
    return reported(file, file, json.loads(file.read_text()))


@parser
def project_of_an_own_package(root):
    (root / "own").mkdir()
    (root / "own" / "__init__.py").touch()
    text = '[project]\nname = "own"\n\n[project.entry-points."vimlight.plugins"]\na = "own.a"\n'

    def read(_):
        return OwnPackage.at(root).announcing("vimlight.plugins", "b", "own.b")

    return written(root / "pyproject.toml", text, read)


@parser
def image_sent_to_a_server(root):
    pytest.importorskip("starlette")
    from vimlight.serving.reading import RefusedError, decoded

    def read(file):
        try:
            return decoded(file.read_bytes(), 10**6)
        except RefusedError as error:
            raise DataError(str(error)) from error

    return written(root / "a.png", png(np.eye(5, dtype=np.uint8)), read)
