"""Tiny data in the folders of VTAB-1k, of CoOp's data sets and of CLIP_benchmark."""

from __future__ import annotations

import io
import json
import tarfile
import zlib

import numpy as np
from PIL import Image

from vimlight.data.coop_files import DATASETS


def write_image(path, size, colour):
    """Writes an image of about one colour, another one for another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 40, (size[1], size[0], 3))
    Image.fromarray(((np.array(colour) + noise) % 256).astype(np.uint8)).save(path)


def write_vtab(root, task, train=(0, 0, 1, 1), val=(2, 1), test=(0, 3), size=(20, 20)):
    """Writes lists of the given labels; each list has copies of its images of its own."""
    folder = root / task
    for split, labels in {"train800": train, "val200": val, "train800val200": (*train, *val), "test": test}.items():
        lines = [f"images/{split}/{number:06d}.jpg {label}" for number, label in enumerate(labels)]
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for number, label in enumerate(labels):
            write_image(folder / f"images/{split}/{number:06d}.jpg", size, (40 * label, 90, -17 * label))
    return folder


def write_coop(root, dataset="oxford_pets", classes=5, train=6, val=5, test=2, size=(20, 20)):
    """Writes some images of each class and the file that lists them, in the data set's own layout."""
    folder, about = root / dataset, DATASETS[dataset]
    names = [f"kind_{label} of {dataset}" for label in range(classes)]
    counts = {"train": train, "val": val, "test": test}
    if dataset == "imagenet":
        return _write_imagenet(folder, names, train + val, test, size)
    rows = {
        split: [
            (f"{split}_{label}_{number}.jpg", label, names[label])
            for label in range(classes)
            for number in range(count)
        ]
        for split, count in counts.items()
    }
    for path, label, _ in (row for part in rows.values() for row in part):
        write_image(folder / about.images / path, size, (50 * label, 120, -25 * label))
    if about.split:
        (folder / about.split).write_text(json.dumps(rows))
        return folder
    (folder / "variants.txt").write_text("\n".join(names) + "\n")
    for split, part in rows.items():
        lines = [f"{path.removesuffix('.jpg')} {name}" for path, _, name in part]
        (folder / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def _write_imagenet(folder, names, train, test, size):
    for split, count in (("train", train), ("val", test)):
        for label in range(len(names)):
            for number in range(count):
                file = folder / "images" / split / f"n{label:08d}" / f"{number}.JPEG"
                write_image(file, size, (50 * label, 9, 9))
    lines = [f"n{label:08d} {name}" for label, name in reversed(list(enumerate(names)))]
    (folder / "classnames.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_webdataset(root, labels, names=("cat, big", "", 'dog "x"'), suffix="webp", per_shard=3):
    """Writes shards of samples with one label, or with a list of zeros and ones, for each image of each part."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classnames.txt").write_text("\n".join(names))
    several = any(isinstance(label, list) for part in labels.values() for label in part)
    if several:
        (root / "dataset_type.txt").write_text("multilabel")
    for split, part in labels.items():
        shards = [part[start : start + per_shard] for start in range(0, len(part), per_shard)]
        (root / split).mkdir()
        (root / split / "nshards.txt").write_text(str(len(shards)))
        number = 0
        for index, shard in enumerate(shards):
            with tarfile.open(root / split / f"{index}.tar", "w") as archive:
                for label in shard:
                    _add(archive, f"s{number:07d}.{suffix}", _picture(number, suffix))
                    _add(archive, f"s{number:07d}.{'npy' if several else 'cls'}", _label(label, several))
                    number += 1
    return root


def _add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _picture(number, suffix):
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG", "webp": "WEBP", "png": "PNG"}[suffix]
    options = {"lossless": True} if suffix == "webp" else {}
    Image.new("RGB", (9, 7), (20 * number % 256, 100, 7)).save(buffer, kind, **options)
    return buffer.getvalue()


def _label(label, several):
    if not several:
        return str(label).encode()
    buffer = io.BytesIO()
    np.save(buffer, np.array(label))
    return buffer.getvalue()
