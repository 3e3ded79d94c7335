"""`vimlight demo`: a zoo trained on drawn images over a small frozen backbone, aggregated for real few-shot tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vimlight.commands.options import Parser

if TYPE_CHECKING:
    from vimlight.comparison import Gates, Plan
    from vimlight.report import ResultsTable

__all__ = ["main", "plan"]


def main(arguments: Sequence[str]) -> None:
    """Runs the demo.

    Args:
        arguments: Options; see `vimlight demo --help`.

    Raises:
        ConfigError: If the output folder holds results of another run and `--overwrite` was not given.
    """
    parser = Parser("vimlight demo", description="Train a zoo, aggregate it for few-shot tasks and compare.")
    parser.add_argument(
        "--out", default="demo", help="folder for the zoo, results.json and report.html (default: demo)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args(arguments)
    run(plan(), Path(options.out), title="vimlight demo", overwrite=options.overwrite)


def run(plan: Plan, folder: Path, title: str, *, overwrite: bool) -> ResultsTable:
    """Trains the zoos of a plan, compares the methods, prints the table and writes the report.

    Args:
        plan: What to compare.
        folder: Where the zoos and the results go.
        title: Title of the report.
        overwrite: Whether results that are there may be replaced.

    Raises:
        ConfigError: If there are results and `overwrite` is false.
    """
    from vimlight.comparison import VIM, compare, train_zoo
    from vimlight.errors import ConfigError

    if (folder / "results.json").exists() and not overwrite:
        raise ConfigError(f"{folder / 'results.json'} exists; choose another --out, or pass --overwrite")
    start = time.monotonic()
    backbone = plan.create_backbone()
    print(f"backbone {backbone.name}: {sum(p.numel() for p in backbone.parameters()):,} frozen parameters")
    zoos = train_zoo(plan, backbone, folder)
    table, gates = compare(plan, zoos)
    table.print("test accuracy, mean ± standard deviation over seeds")
    table.against(VIM).print(f"{VIM} minus each other method, seed by seed")
    if backbone.compute_fingerprint() != backbone.fingerprint:
        raise AssertionError("the frozen backbone has changed")
    _write(table, gates, folder, title, overwrite=overwrite)
    print(f"{folder / 'results.json'} and {folder / 'report.html'} written, {time.monotonic() - start:.0f} s in all")
    return table


def _write(table: ResultsTable, gates: dict[str, Gates], folder: Path, title: str, *, overwrite: bool) -> None:
    from vimlight.comparison import VIM
    from vimlight.report import Page
    from vimlight.report.plots import bars_with_spread, gate_heatmap

    table.save(folder / "results.json", overwrite=overwrite)
    page = Page(title)
    page.paragraph(
        "Every method reads out the same layers, each averaged over the quarters of the image, and fits the same "
        "closed-form head, except the first, which sees the last feature alone. Spread is the standard deviation over "
        "seeds."
    )
    page.results(table, "Test accuracy")
    page.results(table.against(VIM), f"{VIM} minus each other method, seed by seed")
    page.figure(bars_with_spread(table.methods, table.panels(), highlight=VIM, unit="%"), "Test accuracy by task.")
    for name, found in gates.items():
        heatmap = gate_heatmap(found.values.numpy(), found.places, found.names, f"Gates for {name}")
        page.figure(heatmap, f"Gates that ViM learned for {name}, with most labels and the last seed.")
    page.save(folder / "report.html", overwrite=overwrite)


def plan() -> Plan:
    """Returns what the demo compares: drawn midstream tasks, and downstream tasks of which one is real."""
    from vimlight.comparison import Plan, Task

    drawn = ("letters", "shapes", "orientation", "position")
    midstream = tuple(Task(name, "scenes", {"task": name, "train": 16_000, "test": 100}) for name in drawn)
    downstream = (
        Task("digits", "digits"),
        Task("odd shapes", "scenes", {"task": "odd_shapes", "train": 800, "test": 300}),
        Task("relations", "scenes", {"task": "relations", "train": 400, "test": 300}),
    )
    return Plan(
        backbone={"name": "vit_scenes_small", "pretrained": True},
        midstream=midstream,
        downstream=downstream,
        plugin={"kind": "convpass", "hidden": 16},
        epochs=1,
        test_limit=300,
    )
