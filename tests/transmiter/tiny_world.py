"""A small world of two image-text models: caches of a weak one, its tuned form and a strong one, on three splits."""

from __future__ import annotations

from pathlib import Path

import torch

from vimlight.transmiter import TextHead, TransMiter, write_cache

CLASSES = ("cat", "dog", "fish", "oak", "pine", "rose")
AUX = ("car", "bus", "cup", "pen")
PARTITIONS = {"base": [0, 1, 2], "novel": [3, 4, 5]}
WIDTH = 8
ROWS = {"": 60, "_train": 48, "_val": 36}
NOISE = {"source": 1.4, "target": 0.9}
SPLITS = {"": "test", "_train": "train", "_val": "val"}


def build(folder: Path, seed: int = 0, rows: dict[str, int] | None = None) -> dict[str, Path]:
    """Writes all caches and adapters; returns their paths by role."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(CLASSES) + len(AUX), WIDTH, generator=generator)
    heads = {model: centres + 0.5 * torch.randn(centres.shape, generator=generator) for model in NOISE}
    paths = {}
    for suffix, count in (rows or ROWS).items():
        labels = torch.arange(count) % len(CLASSES)
        common = {
            "class_names": CLASSES, "labels": labels, "split": SPLITS[suffix], "partitions": PARTITIONS,
            "ids": [f"{SPLITS[suffix]}/{row}.png" for row in range(count)],
        }  # fmt: skip
        features = {}
        for model, noise in NOISE.items():
            features[model] = centres[labels] + noise * torch.randn(count, WIDTH, generator=generator)
            path = folder / f"{model}{suffix}"
            head = TextHead(heads[model], 10.0)
            write_cache(path, features=features[model], head=head, aux_names=AUX, model=model, **common)
            paths[model + suffix] = path
        plain = TextHead(heads["source"][: len(CLASSES)], 10.0).logits(features["source"])
        gain = torch.zeros(plain.shape)
        gain[:, :3] = 2 * torch.nn.functional.one_hot(labels, len(CLASSES))[:, :3]
        tuned = plain + gain + torch.randn(plain.shape, generator=generator)
        write_cache(folder / f"source_tuned{suffix}", logits=tuned, model="source, tuned", **common)
        paths[f"source_tuned{suffix}"] = folder / f"source_tuned{suffix}"
    write_cache(folder / "target_tuned", logits=_tuned_target(paths), model="target, tuned", **_of("", rows))
    return {**paths, "target_tuned": folder / "target_tuned", **_adapters(folder)}


def trained(adapter: TransMiter, seed: int = 0) -> TransMiter:
    """Gives an adapter a last layer that changes something."""
    torch.nn.init.normal_(adapter.mlp[3].weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    return adapter


def _tuned_target(paths):
    from vimlight.transmiter import LogitCache

    cache = LogitCache.open(paths["target"])
    return cache.logits(columns=slice(0, len(CLASSES))) + torch.nn.functional.one_hot(cache.labels, len(CLASSES))


def _of(suffix, rows):
    count = (rows or ROWS)[suffix]
    ids = [f"{SPLITS[suffix]}/{row}.png" for row in range(count)]
    return {"class_names": CLASSES, "labels": torch.arange(count) % len(CLASSES), "split": SPLITS[suffix], "ids": ids}


def _adapters(folder):
    paths = {}
    for seed, role in enumerate(("adapter", "adapter_unmoved", "adapter_plus", "adapter_published")):
        adapter = trained(TransMiter(len(CLASSES + AUX), len(CLASSES), seed=seed), seed)
        adapter.describe(class_names=CLASSES, aux_names=AUX, model="target").save(folder / f"{role}.safetensors")
        paths[role] = folder / f"{role}.safetensors"
    small = trained(TransMiter(len(CLASSES), len(CLASSES))).describe(class_names=CLASSES, model="target")
    small.save(folder / "adapter_no_aux.safetensors")
    return {**paths, "adapter_no_aux": folder / "adapter_no_aux.safetensors"}


def command_line(paths: dict[str, Path], *leave_out: str) -> list[str]:
    """Returns the options of `vimlight evaluate` for these paths."""
    pairs = [(f"--{role.replace('_', '-')}", str(path)) for role, path in paths.items() if role not in leave_out]
    return [word for pair in pairs for word in pair]
