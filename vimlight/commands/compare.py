"""`vimlight compare PLAN.yaml --out DIR`: methods on tasks of your own, as a plan says; a broken run goes on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimlight.commands.beforehand import check_file
from vimlight.commands.options import Parser
from vimlight.errors import ConfigError
from vimlight.files.atomic import check_writable
from vimlight.workers import prepare_workers, stop_on_signals

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from vimlight.comparison.entries import Plan
    from vimlight.comparison.results import Compared
    from vimlight.comparison.running import Shard
    from vimlight.comparison.standings import Standings
    from vimlight.comparison.transfers.plan import Transfers
    from vimlight.comparison.transfers.summary import Summary

__all__ = ["compare", "main"]

FOR_WORKERS = ("vimlight.comparison.modules", "vimlight.comparison.fits", "sklearn.datasets")


def main(arguments: Sequence[str]) -> None:
    """Runs a plan.

    Args:
        arguments: Options; see `vimlight compare --help`.

    Raises:
        ConfigError: If the plan, an option or what it needs is wrong.
    """
    parser = Parser(
        "vimlight compare",
        description="Train the modules of a plan, compare methods on its tasks, and write results.json, table.md, "
        "table.csv and report.html. The same command goes on where a run was broken off.",
    )
    parser.add_argument("plan", help="the plan, a YAML file")
    parser.add_argument("--out", required=True, help="folder for everything that is written")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="do share I of N; shards may share the folder")
    parser.add_argument("--dry-run", action="store_true", help="print the jobs and how many are done")
    parser.add_argument("--executor", default="local", help="local (processes here), dask or slurm")
    parser.add_argument("--address", metavar="TCP", help="of Dask's scheduler, tcp://HOST:PORT")
    parser.add_argument("--wandb", metavar="PROJECT", help="log a run for each result, and one with the table")
    options = parser.parse_args(arguments)
    shard = _shard(options.shard)
    check_file("plan", options.plan, pattern="*.y*ml")
    if options.executor == "local" and not options.dry_run:
        prepare_workers(FOR_WORKERS)
    from vimlight.comparison.entries import Plan
    from vimlight.comparison.present import present
    from vimlight.comparison.reading import read_any

    plan = read_any(options.plan)
    plan = present(plan) if isinstance(plan, Plan) else plan
    if options.dry_run:
        _print_jobs(plan, Path(options.out), shard)
        return
    with stop_on_signals():
        compare(plan, Path(options.out), shard, executor=options.executor, address=options.address, wandb=options.wandb)


def _shard(text: str) -> Shard:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--shard {text}: expected I/N with I from 1 to N, such as 3/16")
    return int(found[1]), int(found[2])


def compare(
    plan: Plan | Transfers,
    folder: Path,
    shard: Shard = (1, 1),
    *,
    executor: str = "local",
    address: str | None = None,
    wandb: str | None = None,
) -> Compared:
    """Does what of a plan is still to be done, writes the results and prints the tables.

    Args:
        plan: The plan.
        folder: Where everything goes.
        shard: Which of how many shares.
        executor: Who runs the jobs; see `open_executor`.
        address: Of Dask's scheduler.
        wandb: Project that results are logged to.

    Returns:
        What came out so far.
    """
    from vimlight.comparison.executors import open_executor
    from vimlight.comparison.results import gather, write_results
    from vimlight.comparison.running import run_study
    from vimlight.comparison.tracking import Tracker
    from vimlight.comparison.work import study_of
    from vimlight.pages import build_report

    def opened(jobs: int) -> AbstractContextManager[Executor]:
        return open_executor(executor, jobs, address=address, folder=folder / "slurm")

    check_writable(folder)
    study = study_of(plan, folder)
    folder.mkdir(parents=True, exist_ok=True)
    tracker = None if wandb is None else Tracker(wandb, study)
    run_study(study, opened, shard, None if tracker is None else tracker.log)
    compared = gather(study)
    write_results(compared)
    build_report([folder / "results.json"]).save(folder / "report.html", overwrite=True)
    if tracker is not None:
        tracker.summarise(compared.tables)
    _print_tables(compared.tables, compared.summaries)
    if compared.missing:
        print(f"{compared.missing} of {len(study.jobs())} results are still to come, from other shards")
    print(f"{folder / 'table.md'}, results.json, table.csv and report.html written")
    return compared


def _print_tables(tables: Sequence[Standings], summaries: Sequence[Summary]) -> None:
    from rich.console import Console

    from vimlight.comparison.tables import LEGEND, rich_table, rich_tables
    from vimlight.comparison.transfers.summary import LEGEND as PROMISE
    from vimlight.report.tables import print_whole

    console = Console()
    for summary in summaries:
        print_whole(rich_table(summary.title, summary.header, summary.rows), console)
    if summaries:
        console.print(PROMISE, style="dim", markup=False)
    for table in rich_tables(tables, console.width):
        print_whole(table, console)
    console.print(LEGEND, style="dim", markup=False)


def _print_jobs(plan: Plan | Transfers, folder: Path, shard: Shard) -> None:
    from vimlight.comparison.running import pending_fits, pending_modules
    from vimlight.comparison.study import Study
    from vimlight.comparison.work import study_of

    study = study_of(plan, folder, download=False)
    modules = study.module_jobs() if isinstance(study, Study) else []
    pending = {str(job) for job in pending_modules(study)}
    for job in modules:
        print(f"module {job}: {'to do' if str(job) in pending else 'done'}")
    left = {str(fits[0].group): fits for fits in pending_fits(study, shard)}
    counts = Counter(str(fit.group) for fit in study.jobs(shard))
    for group, count in counts.items():
        fits = left.get(group, [])
        print(f"{group}: {count - len(fits)} of {count} done" + (f"; to do: {_labels(fits)}" if fits else ""))
    total, to_do = sum(counts.values()), sum(map(len, left.values()))
    print(f"{len(modules) - len(pending)} of {len(modules)} modules and {total - to_do} of {total} results are done")


def _labels(fits: Sequence[Any]) -> str:
    return ", ".join(fit.label for fit in fits)
