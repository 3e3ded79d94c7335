"""Caches of ever more rows: opened, transferred and evaluated in linear time and flat memory; built in bfloat16."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.memory import peak_of_this_process
from benchmarks.photographs import write_images
from benchmarks.results import Comparison, Figure
from benchmarks.speed.reading import caching, write_model
from vimlight.data import DownstreamDataModule
from vimlight.transmiter import LogitCache, TextHead, TransMiter, align
from vimlight.transmiter.cache.assembly import assemble
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.judging.evaluation import evaluate
from vimlight.transmiter.judging.roles import Inputs
from vimlight.transmiter.models.image_text import load_model

CLASSES, LOGITS, BLOCK = 10, 16, 4096
_METHODS, _STEPS = ("target_zero_shot", "transmiter"), ("open", "transfer", "evaluate")


@BENCHMARKS.register("caches")
def caches(
    bench: Bench,
    *,
    rows: Sequence[int],
    width: int,
    images: int,
    tower: Mapping[str, int],
    batch: int,
    rounds: int,
    bars: Mapping[str, float],
) -> Iterator[Comparison | Figure]:
    """Measures caches of features of random rows, and builds one of image files in either precision.

    A process of its own opens a cache as source and target, transfers an adapter and evaluates. `linear` is the slope
    of its time over the rows, both in logarithms, from the first size to the last.

    Args:
        bench: Where; all but the build runs on the CPU in any case.
        rows: Numbers of rows.
        width: Of the features, in float16.
        images: JPEG files that a cache is built of.
        tower: Settings of the image tower of that model.
        batch: Images at a time.
        rounds: How often it is built.
        bars: What is asked of the `build` in bfloat16 by that in float32, of `memory_growth` in megabytes from the
            first size to the last beyond 32 bytes a row (labels, row numbers and predictions), and of `linear`.
    """
    yield from _built(bench, images, dict(tower), batch, rounds, bars["build"])
    found: list[tuple[int, dict[str, float]]] = []
    for count in rows:
        folder = write_features(bench.scratch / f"rows-{count}", count, width)
        found.append((count, _measured(folder)))
        shutil.rmtree(folder)
        first, here = found[0][1], found[-1][1]
        where = {"x": count, "axis": "rows"}
        for step in _STEPS:
            title = f"{step}, {count:,} rows of {width}"
            yield bench.figure(title, here[step], "s", curve=f"time of caches of width {width}", **where)
        limit = first["peak"] + bars["memory_growth"] + 32 * (count - rows[0]) / 2**20
        title, curve = f"peak memory, {count:,} rows of {width}", f"memory of caches of width {width}"
        yield bench.figure(title, here["peak"], "MB", at_most=limit, curve=curve, **where)
    (few, first), (many, last) = found[0], found[-1]
    taken = [sum(times[step] for step in _STEPS) for times in (first, last)]
    slope = math.log(taken[1] / taken[0]) / math.log(many / few)
    yield bench.figure(f"slope of time, {few:,} to {many:,} rows", slope, "", at_most=bars["linear"])


def write_features(folder: Path, rows: int, width: int) -> Path:
    """Writes a cache of features that repeat after some thousands, block by block.

    Args:
        folder: Where.
        rows: How many.
        width: Of the features.

    Returns:
        The folder.
    """
    generator = torch.Generator().manual_seed(0)
    block = torch.nn.functional.normalize(torch.randn(BLOCK, 1, width, generator=generator), dim=2)
    stored = block.numpy().astype("float16")
    head = TextHead(torch.randn(LOGITS, width, generator=generator), 10.0, 0.0)
    names = tuple(f"class {index}" for index in range(LOGITS))
    manifest = Manifest(
        "m", "test", names[:CLASSES], names[CLASSES:], rows=rows, views=1, width=width, dtype="float16"
    )
    blocks = (stored[: min(BLOCK, rows - at)] for at in range(0, rows, BLOCK))
    assemble(folder / "cache", manifest, blocks, Numbers(rows), torch.arange(rows) % CLASSES, head, False)
    return folder


class Numbers(Sequence[str]):
    """The numbers of rows as names, none of which is kept.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        """Returns how many there are."""
        return self._count

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        """Returns a name."""
        return str(range(self._count)[index])


def _built(
    bench: Bench, images: int, tower: dict[str, int], batch: int, rounds: int, bar: float
) -> Iterator[Comparison | Figure]:
    folder = write_images(bench.scratch / "pictures", images, (320, 320))
    name = write_model(bench.scratch / "image-text model", tower)
    data = DownstreamDataModule(
        "image_folder", {"root": str(folder)}, batch_size=batch, preprocessing=load_model(name).image_input
    )
    models = {precision: load_model(name) for precision in ("32", "auto")}
    for precision, model in models.items():
        model.to(bench.device, precision)
    names = {precision: f"precision {precision} ({model.precision})" for precision, model in models.items()}
    tasks = {names[precision]: caching(bench, model, data) for precision, model in models.items()}
    title = f"cache of {images} JPEG files by a ViT of width {tower['width']}"
    yield bench.compare(title, tasks, rounds=rounds, at_most={names["auto"]: bar}, count=False)
    features = [
        build_cache(bench.scratch / f"in {precision}", model, data, CacheSettings(split="train")).features()
        for precision, model in models.items()
    ]
    yield bench.figure("least cosine of features in both", float((features[0] * features[1]).sum(1).min()))


def _measured(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", __name__, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Opens, transfers and evaluates, and prints the seconds of each and the peak memory of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    times, path = [time.perf_counter()], folder / "cache"
    cache = LogitCache.open(path)
    times.append(time.perf_counter())
    moved = align(TransMiter(LOGITS, CLASSES), cache, LogitCache.open(path))
    moved.save(folder / "adapter.safetensors")
    times.append(time.perf_counter())
    inputs = Inputs.open(
        dict.fromkeys(("target", "source", "source_tuned"), path), {"adapter": folder / "adapter.safetensors"}
    )
    evaluate(inputs, "all_classes", methods=_METHODS, base=range(CLASSES // 2))
    times.append(time.perf_counter())
    seconds = [late - early for early, late in pairwise(times)]
    print(json.dumps({**dict(zip(_STEPS, seconds, strict=True)), "peak": peak_of_this_process()}))


if __name__ == "__main__":
    main()
