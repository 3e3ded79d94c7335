"""The short demo beside the full one, side by side: how long each takes, and whether the short one says the same.

    python -m benchmarks.demo --out demo-times
    python -m benchmarks.demo --out demo-times-32 --precision 32-true    # as on a processor without bfloat16

Each demo is a process of its own with both halves, as `vimlight demo` starts it, so that starting and importing count.
It prints the times with their ratio, and for both what the demo is for: ViM minus its controls and TransMiter and
`safe` minus the target's zero-shot accuracy, seed by seed. `demo.json` keeps all of it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vimlight.cli import guarded
from vimlight.commands import demo
from vimlight.commands.options import Parser
from vimlight.errors import ConfigError
from vimlight.files.atomic import write_whole
from vimlight.report.files import read_results
from vimlight.report.tables import Statistic, print_whole
from vimlight.workers import prepare_workers

SIZES = ("full", "short")
CONTROLS = ("linear probe, all layers", "random modules", "shuffled midstream labels", "uniform")
VIM = "ViM (ens_moe)"
MOVED = ("transmiter", "safe")
BAR = 0.2


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs both demos, prints the tables and writes the numbers.

    Args:
        arguments: Options; see `--help`.

    Raises:
        ConfigError: If there are results already and `--overwrite` was not given.
    """
    parser = Parser("python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--out", default="demo-times", help="folder of both demos (default: demo-times)")
    parser.add_argument("--precision", default="auto", help="as in Lightning's Trainer (default: the machine's best)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    parser.add_argument("--one", metavar="SIZE", help="run one of the two alone")
    options = parser.parse_args(arguments)
    folder = Path(options.out)
    if options.one:
        run_one(options.one, folder, options.precision, options.overwrite)
        return
    if (folder / "demo.json").exists() and not options.overwrite:
        raise ConfigError(f"{folder / 'demo.json'} exists; choose another --out, or pass --overwrite")
    seconds = {size: timed(size, options) for size in SIZES}
    gains = {size: {**vim_gains(folder / size), **moved_gains(folder / size)} for size in SIZES}
    show(seconds, gains)
    found = {"precision": options.precision, "seconds": seconds, "gains": gains}
    write_whole(folder / "demo.json", json.dumps(found, indent=1) + "\n", overwrite=options.overwrite)


def run_one(size: str, folder: Path, precision: str, overwrite: bool) -> None:
    """Runs one demo, as `vimlight demo` does."""
    prepare_workers(demo.FOR_WORKERS)
    vim, moved = (
        dataclasses.replace(plan, precision=precision)
        for plan in (demo.plan(size == "full"), demo.transfer_plan(size == "full"))
    )
    demo.both(vim, moved, folder / size, overwrite=overwrite)


def timed(size: str, options: Any) -> float:
    """Returns the seconds that one demo takes in a process of its own.

    Raises:
        SystemExit: If it fails, which it has said by then.
    """
    flags = ["--out", options.out, "--precision", options.precision, *["--overwrite"] * options.overwrite]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "benchmarks.demo", "--one", size, *flags], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return time.perf_counter() - start


def vim_gains(folder: Path) -> dict[str, list[float]]:
    """Returns ViM minus each control in points, averaged over tasks and shots, for each seed."""
    records = read_results((folder / "results.json").read_bytes(), "results.json")["records"]
    means = {name: by_seed(record for record in records if record["method"] == name) for name in (VIM, *CONTROLS)}
    return {
        f"ViM minus {name}": [100 * (means[VIM][seed] - means[name][seed]) for seed in means[name]] for name in CONTROLS
    }


def by_seed(records: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Returns the mean value of records with each seed."""
    found: dict[int, list[float]] = {}
    for record in records:
        found.setdefault(record["seed"], []).append(record["value"])
    return {seed: statistics.fmean(values) for seed, values in found.items()}


def moved_gains(folder: Path) -> dict[str, list[float]]:
    """Returns what is moved minus the target's zero-shot harmonic mean in points, for each seed."""
    scores = harmonic_means(folder)
    return {
        f"{name} minus target zero-shot": [100 * (of[name] - of["target_zero_shot"]) for of in scores] for name in MOVED
    }


def harmonic_means(folder: Path) -> list[dict[str, float]]:
    """Returns the harmonic mean of base and novel classes by method, for each seed."""
    runs = read_results((folder / "transfer.json").read_bytes(), "transfer.json")["runs"]
    return [{name: found["accuracies"]["harmonic"] for name, found in run["methods"].items()} for run in runs]


def show(seconds: Mapping[str, float], gains: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Prints the times and the gains."""
    times = _table(f"start included; asked of the short demo: at most {BAR} of the full one", "", "ratio")
    times.add_row("seconds", *(f"{seconds[size]:.0f}" for size in SIZES), f"{seconds['short'] / seconds['full']:.3f}")
    ahead = _table("points, mean ± standard deviation over seeds", "what")
    for name in gains["full"]:
        ahead.add_row(name, *(mean_and_spread(gains[size][name]) for size in SIZES))
    for table in (times, ahead):
        print_whole(table)


def mean_and_spread(values: Sequence[float], sign: str = "+") -> str:
    """Returns mean and standard deviation as a text, of differences with their sign."""
    found = Statistic(dict(enumerate(values)))
    return f"{found.mean:{sign}.3f} ± {found.std:.3f}"


def _table(title: str, first: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in (first, *SIZES, *more):
        table.add_column(name, justify="left" if name == first else "right", no_wrap=True)
    return table


if __name__ == "__main__":
    guarded(lambda: main(sys.argv[1:]))
