"""All bars in one table, from the results that lie in a folder.

    python -m benchmarks --out results && python -m benchmarks.ranking --out results/ranking
    python -m benchmarks.waiting --out results && python -m benchmarks.demo --out results/demo
    python -m benchmarks.ranking --out results/curve --modules 1000 --curve --tasks digits
    python -m benchmarks.before 4290286 --out results && python -m benchmarks.builds 6551290 --out results
    python -m benchmarks.bars results

It reads every `speed.json`, `ranking.json`, `curve.json`, `waiting.json`, `demo.json`, `before.json` and
`builds.json` below the folder, and prints what is asked, what was measured, and whether it is met. What nobody has
measured is said to be missing.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from benchmarks.ranking import BARS as RANKING
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.errors import ConfigError
from vimlight.report.tables import print_whole

__all__ = ["AREAS", "Line", "lines", "main"]

AREAS = {
    "ranking": "ranking a zoo", "memory": "memory of a training step", "waiting": "waiting for commands",
    "demo": "the demo", "throughput": "throughput over files", "caches": "caches", "gpu": "a GPU",
    "workers": "many modules on workers", "tests": "the tests", "before": "what checking costs",
}  # fmt: skip
_PASSES = {100: 12.0, 1000: 20.0}


class Line(NamedTuple):
    """A bar and what was measured.

    Attributes:
        area: Which of `AREAS`, or the benchmark that it is of.
        what: What was measured.
        bar: What is asked.
        measured: The number.
        met: Whether it is as asked.
    """

    area: str
    what: str
    bar: str
    measured: float
    met: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table.

    Args:
        arguments: The command line; the process's own if left out.
    """
    parser = Parser("python -m benchmarks.bars", description=__doc__)
    parser.add_argument("folder", help="where results lie")
    found = lines(Path(parser.parse_args(arguments).folder))
    table = Table("", "what", "asked", "measured", "", box=box.SIMPLE_HEAD)
    for area in [*AREAS, *sorted({line.area for line in found} - set(AREAS))]:
        mine = [line for line in found if line.area == area]
        if not mine:
            table.add_row(AREAS[area], "", "", "", "not measured")
        for line in mine:
            state = "met" if line.met else "missed"
            table.add_row(AREAS.get(area, area), line.what, line.bar, f"{line.measured:.4g}", state)
    print_whole(table)
    print(f"{sum(line.met for line in found)} of {len(found)} bars met")


def lines(folder: Path) -> list[Line]:
    """Returns the bars of all results below a folder, file by file.

    Args:
        folder: The folder.

    Raises:
        ConfigError: If there are none, or a file is none of a benchmark.
    """
    files = sorted(path for path in folder.rglob("*.json") if path.name in _READERS)
    if not files:
        raise ConfigError(f"{str(folder)!r} holds no {', '.join(_READERS)}; run the benchmarks with --out {folder}")
    found: list[Line] = []
    for file in files:
        try:
            found += _READERS[file.name](json.loads(file.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file} is no result of a benchmark: {type(error).__name__}: {error}") from error
    return found


def _speed(content: Mapping[str, Any]) -> Iterator[Line]:
    for name, entry in content["benchmarks"].items():
        for result in entry["results"]:
            for row in result.get("rows", [result]):
                if row["bar"] is not None:
                    what = f"{result['title']}: {row['name']}" if "name" in row else result["title"]
                    yield Line(name, what, row["bar"], row.get("ratio", row.get("value")), row["met"])
    if content["device"] != "cpu":
        whole = [name for name, entry in content["benchmarks"].items() if not entry.get("cut")]
        count, every = len(whole), len(content["benchmarks"])
        what = f"benchmarks that ran to their end on {content['device']}"
        yield Line("gpu", what, f">= {every}", count, count == every)


def _ranking(content: Mapping[str, Any]) -> Iterator[Line]:
    rows, modules = content["rows"], content["modules"]
    mean = {key: statistics.fmean(row[key] for row in rows) for key in ("accuracy", "accuracy exact")}
    if modules in _PASSES:
        yield _passes(content["images"], rows, modules)
    right = sum(row["found"] >= RANKING["found"] or row["behind"] <= RANKING["behind"] for row in rows)
    text = f"cases of {modules} modules in which the best are found, or nearly as good ones"
    yield Line("ranking", text, f">= {len(rows)}", right, right == len(rows))
    behind = mean["accuracy exact"] - mean["accuracy"]
    text = f"accuracy lost with {modules} modules, in points"
    yield Line("ranking", text, f"<= {RANKING['accuracy']:g}", behind, behind <= RANKING["accuracy"])


def _passes(images: int, rows: Sequence[Mapping[str, Any]], modules: int) -> Line:
    # The budget is one of images: of a task with fewer, more passes fit.
    passes, asked = max(row["passes"] * row["images"] / images for row in rows), _PASSES[modules]
    return Line("ranking", f"passes over {images} images, {modules} modules", f"<= {asked:g}", passes, passes <= asked)


def _curve(content: Mapping[str, Any]) -> Iterator[Line]:
    for modules in _PASSES:
        rows = [row for row in content["rows"] if row["modules"] == modules]
        if not rows:
            continue
        yield _passes(content["images"], rows, modules)
        judged = [row for row in rows if "found" in row]
        if judged:
            right = sum(row["found"] >= RANKING["found"] or row["behind"] <= RANKING["behind"] for row in judged)
            text = f"cases of the first {modules} modules in which the best are found, or nearly as good ones"
            yield Line("ranking", text, f">= {len(judged)}", right, right == len(judged))


def _waiting(content: Mapping[str, Any]) -> Iterator[Line]:
    for each in content["commands"]:
        what, bar = f"vimlight {each['command']}, by the imports", each["bar"]
        yield Line("waiting", what, f"<= {bar:g}", each["ratio"], each["ratio"] <= bar)


def _demo(content: Mapping[str, Any]) -> Iterator[Line]:
    from benchmarks.demo import BAR

    ratio = content["seconds"]["short"] / content["seconds"]["full"]
    yield Line("demo", "the short demo's time by the full one's", f"<= {BAR:g}", ratio, ratio <= BAR)


def _before(content: Mapping[str, Any]) -> Iterator[Line]:
    for title, ratio in content["ratios"].items():
        text = f"first read of a process by that of the build before: {title}"
        yield Line("before", text, f"<= {content['bar']:g}", ratio, ratio <= content["bar"])


def _builds(content: Mapping[str, Any]) -> Iterator[Line]:
    from benchmarks.builds import CLOCKS, TITLES, seconds_of

    for what, each in content.items():
        for clock, title in CLOCKS[what].items():
            before, now = seconds_of(each, clock).values()
            text = f"{TITLES[what]} by those of the build before, {title}"
            yield Line(what, text, f"<= {each['bar']:g}", now / before, now / before <= each["bar"])


_READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Line]]] = {
    "speed.json": _speed, "ranking.json": _ranking, "curve.json": _curve, "waiting.json": _waiting,
    "demo.json": _demo, "before.json": _before, "builds.json": _builds,
}  # fmt: skip


if __name__ == "__main__":
    guarded(lambda: main(sys.argv[1:]))
