"""TransMiter's transfer from cache to cache: beside the linear algebra alone, and over ever more rows."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.memory import peak_of_process, peak_of_this_process
from benchmarks.results import Comparison, Figure
from vimlight.transmiter import LogitCache, TransMiter, align
from vimlight.transmiter.cache.assembly import assemble
from vimlight.transmiter.cache.manifest import Manifest

CLASSES = 10


@BENCHMARKS.register("transfer")
def transfer(
    bench: Bench, *, rows: Sequence[int], num_logits: int, beside: int, rounds: int, bars: dict[str, float]
) -> Iterator[Comparison | Figure]:
    """Times a transfer and asks for the memory of a process that does nothing else.

    Args:
        bench: Where; the transfer runs on the CPU in any case.
        rows: Numbers of rows of the caches.
        num_logits: Logits of an image.
        beside: The number of rows at which the linear algebra alone runs too.
        rounds: How often that comparison runs.
        bars: What is asked: `ratio` of the time by the linear algebra's, `memory_growth` from the first to the last.
    """
    first = None
    for count in rows:
        folder = bench.scratch / f"transfer-{count}"
        write_logits(folder, count, num_logits)
        memory = peak_of_process(__name__, str(folder), str(num_logits))
        first = first or memory
        if count == beside:
            tasks = {"products and SVD alone": lambda: bare(folder), "transfer": lambda: move(folder, num_logits)}  # noqa: B023
            title = f"transfer, {count:,} rows of {num_logits} logits"
            yield bench.compare(title, tasks, rounds=rounds, at_most={"transfer": bars["ratio"]}, count=False)
        seconds, _ = bench.seconds(lambda: move(folder, num_logits))  # noqa: B023
        where = {"x": count, "axis": "rows"}
        yield bench.figure(f"transfer, {count:,} rows", seconds, "s", curve="transfer time", **where)
        limit = first + bars["memory_growth"]
        title = f"peak memory, {count:,} rows"
        yield bench.figure(title, memory, "MB", at_most=limit, curve="transfer memory", **where)
        shutil.rmtree(folder)


def write_logits(
    folder: Path,
    rows: int,
    num_logits: int,
    models: Sequence[str] = ("source", "target"),
    labels: Tensor | None = None,
) -> None:
    """Writes paired caches of random logits, block by block, so that writing takes no more memory than reading."""
    names = tuple(f"class {index}" for index in range(num_logits))
    for seed, model in enumerate(models):
        manifest = Manifest(model, "train", names[:CLASSES], names[CLASSES:], rows=rows, views=1, dtype="float32")
        rng = np.random.default_rng(seed)
        blocks = (
            rng.standard_normal((min(4096, rows - at), 1, num_logits), dtype=np.float32) for at in range(0, rows, 4096)
        )
        assemble(folder / model, manifest, blocks, [str(row) for row in range(rows)], labels, None, False)


def bare(folder: Path) -> Tensor:
    """Does what no transfer can do without: reads the logits, z-scores, multiplies, decomposes."""
    source, target = (np.load(folder / model / "logits.npy", mmap_mode="r") for model in ("source", "target"))
    total = torch.zeros(source.shape[2], source.shape[2])
    for at in range(0, len(source), 4096):
        pair = [torch.from_numpy(np.array(side[at : at + 4096, 0])) for side in (target, source)]
        scores = [(rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True) for rows in pair]
        total += scores[0].T @ scores[1]
    left, _, right = torch.linalg.svd(total.double() + 500 * torch.eye(len(total), dtype=torch.float64))
    return left @ right


def move(folder: Path, num_logits: int) -> TransMiter:
    """Moves an adapter from cache to cache."""
    adapter = TransMiter(num_logits, CLASSES)
    return align(adapter, LogitCache.open(folder / "source"), LogitCache.open(folder / "target"))


def main() -> None:
    """Does one transfer and prints the peak memory of the process in megabytes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("num_logits", type=int)
    options = parser.parse_args()
    move(options.folder, options.num_logits)
    print(peak_of_this_process())


if __name__ == "__main__":
    main()
