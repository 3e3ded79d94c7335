"""Tiny data sets of boxes in the real on-disk formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = ({"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 90, "name": "tooth brush"})


def write_picture(path, width=40, height=20, seed=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def annotation(number, image, category, box, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


def write_coco(root, part="train", count=3, annotations=None, categories=CATEGORIES, **changes):
    """Writes `count` images with ids 10, 20, ... of sizes 40x20, 41x20, ... and an annotation file."""
    images = []
    for index in range(count):
        name = f"{index}.png"
        write_picture(root / part / name, 40 + index, 20, index)
        images.append({"id": 10 * (index + 1), "file_name": name, "width": 40 + index, "height": 20})
    if annotations is None:
        annotations = [
            annotation(1, 10, 7, [4, 5, 10, 8]),
            annotation(2, 10, 90, [20.5, 0, 19.5, 20]),
            annotation(3, 20, 3, [0, 0, 41, 20], iscrowd=1),
        ]
    content = {"images": images, "annotations": annotations, "categories": list(categories), **changes}
    path = root / "annotations" / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def voc_object(name, corners, difficult=0):
    keys = ("xmin", "ymin", "xmax", "ymax")
    edges = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{edges}</bndbox></object>"


def write_voc(root, splits, size=(40, 20)):
    """Writes a VOC folder; `splits` maps a split to the objects of each image, as `voc_object` gives them."""
    for split, images in splits.items():
        for index, objects in enumerate(images):
            name = f"{split}_{index}"
            write_picture(root / "JPEGImages" / f"{name}.jpg", *size, seed=index)
            shape = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
            path = root / "Annotations" / f"{name}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            body = f"<annotation><filename>{name}.jpg</filename>{shape}{''.join(objects)}</annotation>"
            path.write_text(body)
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{split}_{index}\n" for index in range(len(images))))
    return root
