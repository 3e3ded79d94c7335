"""Image files to batches, and to a cache of features: beside torchvision's folder and open_clip's own loop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.photographs import write_images
from benchmarks.results import Comparison
from vimlight.data import DownstreamDataModule
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.models.image_text import ImageTextModel, load_model


@BENCHMARKS.register("reading")
def reading(
    bench: Bench, *, images: int, pixels: int, tower: dict[str, int], batch: int, rounds: int, bars: dict[str, float]
) -> Iterator[Comparison]:
    """Compares reading alone, then reading and encoding.

    Args:
        bench: Where.
        images: How many JPEG files.
        pixels: Their sides; the models take 224.
        tower: Settings of the image tower of an open_clip model.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of the `reading` and of the `cache` by the alternatives.
    """
    folder = write_images(bench.scratch / "images", images, (pixels, pixels))
    name = write_model(bench.scratch / "model", tower)
    model, preprocess = open_clip.create_model_from_pretrained(name, device=bench.device)
    own = load_model(name)
    own.to(bench.device, "bf16" if bench.device.type == "cuda" else "32")
    loader = DataLoader(ImageFolder(str(folder / "train"), preprocess), batch_size=batch)
    data = DownstreamDataModule("image_folder", {"root": str(folder)}, batch_size=batch, preprocessing=own.image_input)
    yield bench.compare(
        f"reading {images} JPEG files of {pixels} pixels",
        {
            "torchvision's folder, open_clip's transform": lambda: [images for images, _ in loader],
            "vimlight": lambda: list(data.batches("train", bench.device)),
        },
        rounds=rounds,
        at_most={"vimlight": bars["reading"]},
        count=False,
    )
    yield bench.compare(
        f"features of {images} JPEG files by a ViT of width {tower['width']}",
        {"open_clip's loop": lambda: encode(bench, model, loader), "cache build": caching(bench, own, data)},
        rounds=rounds,
        at_most={"cache build": bars["cache"]},
        count=False,
    )


@torch.no_grad()
def encode(bench: Bench, model: Any, loader: Any) -> torch.Tensor:
    """Encodes images as open_clip's own evaluation does."""
    features = []
    for images, _ in loader:
        with bench.precision():
            features.append(model.encode_image(images.to(bench.device), normalize=True).float().cpu())
    return torch.cat(features)


def caching(bench: Bench, model: ImageTextModel, data: DownstreamDataModule) -> Callable[[], None]:
    """Returns a task that builds a cache and throws it away."""
    path = bench.scratch / "cache"

    def task() -> None:
        build_cache(path, model, data, CacheSettings(split="train"))
        shutil.rmtree(path)

    return task


def write_model(folder: Path, tower: dict[str, int]) -> str:
    """Writes an open_clip model of random weights with a text tower of next to nothing; returns its name."""
    folder.mkdir()
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 64, "vision_cfg": {"image_size": 224, **tower}, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {"size": 224}}))
    save_file(open_clip.CLIP(**model).state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
