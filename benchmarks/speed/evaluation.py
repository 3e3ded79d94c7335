"""An evaluation of many methods from caches of many rows, in one pass over them for each method."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.results import Figure
from benchmarks.speed.transfer import CLASSES, write_logits
from vimlight.transmiter import LogitCache, TransMiter, align, fit_gap_ridge
from vimlight.transmiter.judging.evaluation import evaluate
from vimlight.transmiter.judging.roles import MODELS, Inputs

BASE = tuple(range(CLASSES // 2))


@BENCHMARKS.register("evaluation")
def evaluation(
    bench: Bench, *, rows: int, train_rows: int, num_logits: int, bars: dict[str, float]
) -> Iterator[Figure]:
    """Times the evaluation of every method that works on logits without labels.

    Args:
        bench: Where.
        rows: Images that are scored.
        train_rows: Images that adapters are moved by.
        num_logits: Logits of an image.
        bars: What is asked of the whole in `seconds`.
    """
    inputs = write_inputs(bench.scratch / "evaluation", rows, train_rows, num_logits)
    found = []
    seconds, _ = bench.seconds(lambda: found.append(evaluate(inputs, "all_classes", base=BASE, device=bench.device)))
    title = f"evaluation of {len(found[0].results)} methods on {rows:,} rows of {num_logits} logits"
    yield bench.figure(title, seconds, "s", at_most=bars["seconds"])
    for result in found[0].results.values():
        yield bench.figure(f"{result.title}, of an image", 1e6 * result.seconds_per_image, "µs")
    shutil.rmtree(bench.scratch / "evaluation")


def write_inputs(folder: Path, rows: int, train_rows: int, num_logits: int) -> Inputs:
    """Writes caches of random logits for all models, and adapters that belong to them."""
    write_logits(folder / "test", rows, num_logits, MODELS, labels=torch.arange(rows) % CLASSES)
    write_logits(folder / "train", train_rows, num_logits, MODELS[:3])
    caches = {model: folder / "test" / model for model in MODELS}
    target, source, tuned = (LogitCache.open(folder / "train" / model) for model in MODELS[:3])
    names = {"class_names": source.class_names, "aux_names": source.aux_names, "model": source.model}
    unmoved = TransMiter(num_logits, CLASSES).describe(**names)
    adapters = {
        "adapter_unmoved": unmoved,
        "adapter": align(unmoved, source, target),
        "gap_ridge": fit_gap_ridge(source, tuned, target),
    }
    for role, adapter in adapters.items():
        adapter.save(folder / f"{role}.safetensors")
    return Inputs.open(caches, {role: folder / f"{role}.safetensors" for role in adapters})
