"""What it costs to look at what is read: with the checks of every payload beside the same without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.bench import BENCHMARKS, Bench, Task
from benchmarks.models import backbone_for, modules_for
from benchmarks.results import Comparison
from vimlight.files.checkpoint_files import CheckpointFiles, load_checkpoint_file
from vimlight.prefix_cache.store import Store
from vimlight.transmiter import LogitCache, write_cache
from vimlight.zoo import Zoo


class _Whatever:
    """Is every checksum."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


_NOTHING: Callable[..., None] = lambda *_: None  # noqa: E731
_SUM: Callable[..., Any] = lambda *_: _Whatever()  # noqa: E731
# What is looked at when a file is read, and what does as if it had been.
_CHECKS = {
    "vimlight.zoo.files.sha256_of": _SUM,
    "vimlight.zoo.files.check_finite": _NOTHING,
    "vimlight.zoo.rebuild.check_shapes": _NOTHING,
    "vimlight.files.checksums.CheckedFile.check": _NOTHING,
    "vimlight.files.checksums.CheckedFile.check_all": _NOTHING,
    "vimlight.files.checksums.CheckedFile.compare": _NOTHING,
    "vimlight.prefix_cache.store.crc32_of": _SUM,
    "vimlight.files.checked_members.crc32": _SUM,
}


@BENCHMARKS.register("checking")
def checking(
    bench: Bench, *, backbone: str, kind: str, settings: dict[str, Any], rows: int, classes: int, images: int,
    batch: int, rounds: int, bars: dict[str, float],
) -> Iterator[Comparison]:  # fmt: skip
    """Compares reading with its checks with reading without them, in a process that has not read the file before.

    Args:
        bench: Where.
        backbone: Name of a timm model of blocks.
        kind: Type of the module.
        settings: Its settings.
        rows: How many images a logit cache holds.
        classes: How many it has.
        images: How many a prefix cache holds.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of the `ratio`.
    """
    model = backbone_for(bench, backbone)
    shelf = Zoo(bench.scratch / "checked")
    shelf.add("module", *modules_for(model, 1, kind, **settings))
    reads = {
        f"loading a {kind} module of {backbone}": lambda: shelf.load("module", model),
        f"opening and reading a logit cache, {rows} x {classes}": _of_cache(bench, rows, classes, batch),
        f"an epoch of {images} images through the last block, from a prefix cache": _epoch(bench, model, images, batch),
        f"reading a checkpoint of {backbone}": _of_checkpoint(bench, model),
    }
    for title, read in reads.items():
        tasks = {"unchecked": _unchecked(read), "checked": read}
        yield bench.compare(title, tasks, rounds=rounds, at_most={"checked": bars["ratio"]}, count=False)


def _unchecked(read: Task) -> Task:
    def task() -> None:
        with ExitStack() as stack:
            for name, instead in _CHECKS.items():
                stack.enter_context(patch(name, instead))
            read()

    return task


def _of_cache(bench: Bench, rows: int, classes: int, batch: int) -> Task:
    logits, names = torch.randn(rows, classes), [f"class {number}" for number in range(classes)]
    path = write_cache(bench.scratch / "cache", logits=logits, class_names=names, model="any", split="test").path
    return lambda: [len(found) for found in LogitCache.open(path).batches(batch)]


@torch.no_grad()
def _epoch(bench: Bench, model: Any, images: int, batch: int) -> Task:
    block = model.model.blocks[-1]
    tokens = torch.randn(batch, model.model.patch_embed.num_patches, model.model.embed_dim)

    def compute(chunks: Any) -> Iterator[Any]:
        for rows in chunks:
            yield rows, {"tokens": tokens[torch.arange(len(rows)) % batch]}

    def column() -> Any:
        store = Store(bench.scratch / "prefix", 100.0)
        return store.column({"of": "any"}, images, 2 * tokens[0].numel(), torch.float16)

    @torch.no_grad()
    def epoch() -> None:
        kept = column()
        kept.fill(compute, range(images))
        for start in range(0, images, batch):
            block(kept.read(range(start, min(start + batch, images)))["tokens"].to(bench.device))

    column().fill(compute, range(images))
    return epoch


def _of_checkpoint(bench: Bench, model: Any) -> Task:
    path = bench.scratch / "model.ckpt"
    CheckpointFiles().save_checkpoint({"state_dict": model.model.state_dict()}, path)
    return lambda: load_checkpoint_file(path)
