"""`vimlight demo`: both halves on models that ship with the package, drawn images and real handwritten digits.

A zoo trained over a small frozen backbone and aggregated for few-shot tasks; and what fine-tuning taught a weak
image-text model, moved to a strong one. The short demo asks the same questions as the full one with the same controls,
readout and head, of fewer images, tasks and methods.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vimlight.commands import compare
from vimlight.commands.options import Parser
from vimlight.workers import prepare_workers

if TYPE_CHECKING:
    from vimlight.comparison.entries import Plan
    from vimlight.comparison.transfer import TransferPlan
    from vimlight.report.evaluation import EvaluationTable

__all__ = ["both", "main", "plan", "run_transfer", "transfer_plan"]

_RESULTS = {"vim": "results.json", "transfer": "transfer.json"}
FOR_WORKERS = (*compare.FOR_WORKERS, "vimlight.comparison.transfer", "vimlight.embedded.pair")


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
    parser.add_argument("--full", action="store_true", help="more images, tasks, seeds and methods: takes much longer")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args(arguments)
    halves = _halves(options.only)
    folder = Path(options.out)
    _refuse_results(folder, [*halves.values(), "report.html"], overwrite=options.overwrite)
    prepare_workers(FOR_WORKERS)
    both(
        plan(options.full) if "vim" in halves else None,
        transfer_plan(options.full) if "transfer" in halves else None,
        folder,
        overwrite=options.overwrite,
    )


def both(vim: Plan | None, moved: TransferPlan | None, folder: Path, *, overwrite: bool) -> None:
    """Runs the halves and writes one report.

    Args:
        vim: What the first half compares; none to leave it out.
        moved: What the second half compares; none to leave it out.
        folder: Where everything goes.
        overwrite: Whether results that are there may be replaced.

    Raises:
        ConfigError: If there are results and `overwrite` is false.
    """
    from vimlight.pages import build_report

    _refuse_results(folder, ["report.html"], overwrite=overwrite)
    intro = []
    if vim is not None:
        _run_vim(vim, folder, overwrite=overwrite)
    if moved is not None:
        run_transfer(moved, folder, overwrite=overwrite)
        intro = _about_transfer(moved)
    ran = [folder / _RESULTS[half] for half, plan in (("vim", vim), ("transfer", moved)) if plan is not None]
    # The first half has left a page of its own, which this one holds too.
    build_report(ran, "vimlight demo", intro).save(folder / "report.html", overwrite=True)
    print(f"{folder / 'report.html'} written")


def _halves(only: str | None) -> dict[str, str]:
    """Returns the halves to run, and the file that each writes its numbers to."""
    from vimlight.errors import unknown_name

    if only is not None and only not in _RESULTS:
        raise unknown_name("half of the demo", only, _RESULTS)
    return {half: name for half, name in _RESULTS.items() if only in (None, half)}


def _refuse_results(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    from vimlight.errors import ConfigError
    from vimlight.files.atomic import check_writable

    check_writable(folder)
    for path in (folder / name for name in names):
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} exists; choose another --out, or pass --overwrite")


def _run_vim(plan: Plan, folder: Path, *, overwrite: bool) -> None:
    _refuse_results(folder, [_RESULTS["vim"]], overwrite=overwrite)
    start = time.monotonic()
    compare.compare(plan, folder)
    print(f"{folder / _RESULTS['vim']} written after {time.monotonic() - start:.0f} s")


def run_transfer(plan: TransferPlan, folder: Path, *, overwrite: bool) -> EvaluationTable:
    """Moves what a weak model learnt to a strong one, for all seeds, and prints the table.

    Args:
        plan: What to compare.
        folder: Where the results go; caches and adapters go to `transfer` in it.
        overwrite: Whether results that are there may be replaced.

    Raises:
        ConfigError: If there are results and `overwrite` is false.
    """
    import json

    from vimlight.comparison.transfer import transfer
    from vimlight.report.evaluation import EvaluationTable
    from vimlight.report.files import stamped, write_whole
    from vimlight.transmiter.judging.summary import as_dict

    _refuse_results(folder, [_RESULTS["transfer"]], overwrite=overwrite)
    start = time.monotonic()
    print(f"{plan.weak} is fine-tuned, what it learnt is moved to {plan.strong}")
    runs = transfer(plan, folder / "transfer")
    table = EvaluationTable.of(runs)
    table.print()
    text = json.dumps(stamped(as_dict(runs)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder / _RESULTS["transfer"], text, overwrite=overwrite)
    print(f"{folder / _RESULTS['transfer']} written after {time.monotonic() - start:.0f} s")
    return table


def _about_transfer(plan: TransferPlan) -> list[str]:
    return [
        f"From {plan.weak} to {plan.strong}: compositions of shape and texture; two in five are novel: nothing here is "
        "fitted to images of them, though four of the eight shapes were drawn when the two models were first trained. "
        "Source: the weak model, fine-tuned on base classes. Target: the strong model. Methods that learn from the "
        f"target's labels have {plan.adapted.shots} images of each base class."
    ]


def transfer_plan(full: bool = False) -> TransferPlan:
    """Returns what the second half compares: the embedded pair on drawn compositions.

    Args:
        full: Whether everything is compared; otherwise what costs little once the weak model is fine-tuned.
    """
    from vimlight.comparison.transfer import Adapted, TransferPlan
    from vimlight.data.sources.compositions import held_out_compositions
    from vimlight.transmiter.judging.methods import list_methods

    # The demo's TransMiter is learnt as published.
    methods = [name for name in list_methods() if name != "transmiter_published"]
    if full:
        return TransferPlan(held_out_compositions(), methods=tuple(methods))
    trained = ("target_tuned", "gap_ridge_plus", "transmiter_no_aux", "transmiter_plus")
    return TransferPlan(
        held_out_compositions(),
        dataset_args={"test": 12},
        methods=tuple(name for name in methods if name not in trained),
        seeds=(0, 1),
        adapted=Adapted(epochs=6, extraction_epochs=30),
    )


def plan(full: bool = False) -> Plan:
    """Returns what the first half compares: drawn midstream tasks, and downstream tasks of which one is real.

    Args:
        full: Whether everything is compared; otherwise ViM with its controls, after shorter trainings.
    """
    import vimlight.comparison
    from vimlight.comparison.reading import read_plan

    folder = Path(vimlight.comparison.__file__).parent / "plans"
    return read_plan(folder / ("demo_full.yaml" if full else "demo.yaml"))
