"""`python -m benchmarks [names] [--quick] [--out DIR]`."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.budget import Budget
from benchmarks.memory import keep_heap
from benchmarks.results import Comparison, Figure
from benchmarks.show import machine, plot, show
from vimlight.errors import ConfigError, VimlightError, unknown_name
from vimlight.files.atomic import write_whole

__all__ = ["main", "sizes_of"]

_SIZES = Path(__file__).with_name("sizes.yaml")
# Seconds below which a benchmark gets no further than its first results at full size.
_LEAST = 20.0


def sizes_of(name: str, quick: bool) -> dict[str, Any]:
    """Returns the sizes of a benchmark: those of `full`, where `quick` does not say otherwise."""
    both = yaml.safe_load(_SIZES.read_text())[name]
    return {**both["full"], **(both["quick"] if quick else {})}


def _changed(words: Sequence[str], name: str) -> dict[str, Any]:
    """Reads the sizes that the command line changes.

    Raises:
        UnknownNameError: If the benchmark has no such size.
        ConfigError: If one has no value.
    """
    known, changed = sizes_of(name, quick=False), {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known:
            raise unknown_name(f"size of the benchmark {name!r}:", key, known)
        if not equals:
            raise ConfigError(f"--set {word}: expected {key}=VALUE")
        changed[key] = yaml.safe_load(value)
    return changed


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes.

    Args:
        arguments: The command line; the process's own if left out.
    """
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    names = options.names or list(BENCHMARKS)
    budget = Budget(60 * options.minutes if options.minutes else math.inf, len(names))
    quick = options.quick or budget.share < _LEAST
    found: dict[str, Any] = {**machine(device), "heap_kept": keep_heap(), "quick": quick, "benchmarks": {}}
    results: list[Comparison | Figure] = []
    for name in names:
        benchmark = BENCHMARKS[name]
        console.rule(name)
        sizes = {**sizes_of(name, quick), **_changed(options.set, name)}
        torch.manual_seed(0)
        start, mine = time.perf_counter(), []
        # What one leaves behind is in no other's way.
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch, budget.limit() as limit:
            for result in benchmark(Bench(device, Path(scratch), quick), **sizes):
                show(result, console)
                mine.append(result)
        if limit.cut:
            console.print(f"out of time: {len(mine)} results")
        took = time.perf_counter() - start
        found["benchmarks"][name] = {
            "sizes": sizes, "took_s": took, "cut": limit.cut, "results": [result.as_dict() for result in mine],
        }  # fmt: skip
        results += mine
        if options.out:
            # A later one that fails loses nothing.
            kept = _keep(found, Path(options.out))
    if options.out:
        console.print("written:", ", ".join(map(str, [kept, *plot(results, Path(options.out))])))


def _keep(found: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "speed.json"
    write_whole(file, json.dumps(found, indent=1) + "\n", overwrite=True)
    return file


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What vimlight costs, beside others.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"which benchmarks, of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs: under two minutes")
    parser.add_argument("--minutes", type=float, help="end by then: each has its share, small sizes if that is little")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="sizes of a benchmark that is named")
    parser.add_argument("--out", metavar="DIR", help="folder for speed.json and the plots (with --minutes: speed)")
    parser.add_argument("--device", help="cpu or cuda; a GPU where there is one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--scratch", metavar="DIR", help="folder with room for caches (default: the system's)")
    options = parser.parse_args(arguments)
    options.out = options.out or ("speed" if options.minutes else None)
    return options


if __name__ == "__main__":
    try:
        main()
    except VimlightError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
