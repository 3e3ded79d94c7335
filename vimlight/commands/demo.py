"""`vimlight demo`: both halves on models that ship with the package, drawn images and real handwritten digits.

A zoo trained over a small frozen backbone and aggregated for few-shot tasks; and what fine-tuning taught a weak
image-text model, moved to a strong one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vimlight.commands.options import Parser

if TYPE_CHECKING:
    from vimlight.comparison import Gates, Plan
    from vimlight.comparison.transfer import TransferPlan
    from vimlight.report import Page, ResultsTable
    from vimlight.report.evaluation import EvaluationTable

__all__ = ["main", "plan", "run", "run_transfer", "transfer_plan"]

_RESULTS = {"vim": "results.json", "transfer": "transfer.json"}


def main(arguments: Sequence[str]) -> None:
    """Runs the demo.

    Args:
        arguments: Options; see `vimlight demo --help`.

    Raises:
        ConfigError: If the output folder holds results of another run and `--overwrite` was not given.
        UnknownNameError: If `--only` names no half.
    """
    parser = Parser(
        "vimlight demo",
        description="Train a zoo, aggregate it for few-shot tasks and compare; fine-tune a weak model, move what it "
        "learnt to a strong one and compare.",
    )
    parser.add_argument("--out", default="demo", help="folder for everything that is written (default: demo)")
    parser.add_argument("--only", metavar="HALF", help="vim (the zoo) or transfer (default: both)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args(arguments)
    halves = _halves(options.only)
    folder = Path(options.out)
    from vimlight.report import Page

    _refuse_results(folder, [*halves.values(), "report.html"], overwrite=options.overwrite)
    page = Page("vimlight demo")
    if "vim" in halves:
        _run_vim(plan(), folder, page, overwrite=options.overwrite)
    if "transfer" in halves:
        run_transfer(transfer_plan(), folder, page, overwrite=options.overwrite)
    page.save(folder / "report.html", overwrite=options.overwrite)
    print(f"{folder / 'report.html'} written")


def _halves(only: str | None) -> dict[str, str]:
    """Returns the halves to run, and the file that each writes its numbers to."""
    from vimlight.errors import unknown_name

    if only is not None and only not in _RESULTS:
        raise unknown_name("half of the demo", only, _RESULTS)
    return {half: name for half, name in _RESULTS.items() if only in (None, half)}


def _refuse_results(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    from vimlight.errors import ConfigError

    for path in (folder / name for name in names):
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} exists; choose another --out, or pass --overwrite")


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
    from vimlight.report import Page

    _refuse_results(folder, [_RESULTS["vim"]], overwrite=overwrite)
    page = Page(title)
    table = _run_vim(plan, folder, page, overwrite=overwrite)
    page.save(folder / "report.html", overwrite=overwrite)
    return table


def _run_vim(plan: Plan, folder: Path, page: Page, *, overwrite: bool) -> ResultsTable:
    from vimlight.comparison import VIM, compare, train_zoo

    start = time.monotonic()
    backbone = plan.create_backbone()
    print(f"backbone {backbone.name}: {sum(p.numel() for p in backbone.parameters()):,} frozen parameters")
    zoos = train_zoo(plan, backbone, folder)
    table, gates = compare(plan, zoos)
    table.print("test accuracy, mean ± standard deviation over seeds")
    ahead = table.against(VIM)
    (ahead.averages() if len(plan.downstream) > 1 else ahead).print(f"{VIM} minus each other method, seed by seed")
    if backbone.compute_fingerprint() != backbone.fingerprint:
        raise AssertionError("the frozen backbone has changed")
    table.save(folder / _RESULTS["vim"], overwrite=overwrite)
    _describe_vim(table, gates, page)
    print(f"{folder / _RESULTS['vim']} written after {time.monotonic() - start:.0f} s")
    return table


def run_transfer(plan: TransferPlan, folder: Path, page: Page, *, overwrite: bool) -> EvaluationTable:
    """Moves what a weak model learnt to a strong one, for all seeds, prints the table and adds it to the report.

    Args:
        plan: What to compare.
        folder: Where the results go; caches and adapters go to `transfer` in it.
        page: The report.
        overwrite: Whether results that are there may be replaced.

    Raises:
        ConfigError: If there are results and `overwrite` is false.
    """
    import json

    from vimlight import __version__
    from vimlight.comparison.transfer import transfer
    from vimlight.report.evaluation import EvaluationTable
    from vimlight.report.files import write_whole
    from vimlight.transmiter.summary import as_dict

    _refuse_results(folder, [_RESULTS["transfer"]], overwrite=overwrite)
    start = time.monotonic()
    print(f"{plan.weak} is fine-tuned, what it learnt is moved to {plan.strong}")
    runs = transfer(plan, folder / "transfer")
    table = EvaluationTable.of(runs)
    table.print()
    content = {"vimlight": __version__, **as_dict(runs)}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder / _RESULTS["transfer"], text, overwrite=overwrite)
    page.heading(f"From {plan.weak} to {plan.strong}")
    page.paragraph(
        "Compositions of shape and texture; two in five are novel: nothing here is fitted to images of them, "
        "though four of the eight shapes were drawn when the two models were first trained. Source: the weak "
        f"model, fine-tuned on base classes. Target: the strong model. TransMiter+, Tip-Adapter and the fine-tuned "
        f"target have {plan.adapted.shots} labelled images of each base class."
    )
    page.table(table.header(), table.rows(), table.title)
    for remark in table.remarks:
        page.paragraph(remark)
    print(f"{folder / _RESULTS['transfer']} written after {time.monotonic() - start:.0f} s")
    return table


def _describe_vim(table: ResultsTable, gates: dict[str, Gates], page: Page) -> None:
    from vimlight.comparison import VIM
    from vimlight.report.plots import bars_with_spread, gate_heatmap

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


def transfer_plan() -> TransferPlan:
    """Returns what the second half compares: the embedded pair on drawn compositions."""
    from vimlight.comparison.transfer import TransferPlan
    from vimlight.data.sources.compositions import held_out_compositions

    return TransferPlan(held_out_compositions())


def plan() -> Plan:
    """Returns what the demo compares: drawn midstream tasks, and downstream tasks of which one is real."""
    from vimlight.comparison import Plan, Task

    drawn = ("letters", "shapes", "orientation", "position")
    midstream = tuple(Task(name, "scenes", {"task": name, "train": 12_000, "test": 100}) for name in drawn)
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
        # Two variants of one row, which the benchmark on real data has room for.
        methods=tuple(name for name in Plan.methods if name not in ("ViM, last feature", "ViM, gates that sum to 1")),
        test_limit=300,
    )
