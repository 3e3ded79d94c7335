"""The full demo and the tests of another build of this repository beside those of this one.

    python -m benchmarks.builds 6551290 --out results        # both: an hour of two cores
    python -m benchmarks.builds 6551290 demo --rounds 2

The builds run in turn, with nothing beside them. Of the tests those count that both have, as `make test` runs them; how
many of the other build's this one lacks is printed. Printed are the seconds by the clock, of tests also of the
processor, sums over the rounds, with their ratios; of the demo also what its methods reach in either build.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.before import checked_out, environment_of
from benchmarks.demo import by_seed, harmonic_means, mean_and_spread
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.errors import ConfigError
from vimlight.files.atomic import write_whole
from vimlight.report.files import read_results
from vimlight.report.tables import print_whole

__all__ = ["BARS", "CLOCKS", "TITLES", "main", "seconds_of"]

BARS = {"demo": 0.6, "tests": 0.7}  # of the other build's time
_BUILDS = ("before", "now")
# The demo's workers are children of a server that nobody waits for, so that the system does not say what they used.
CLOCKS = {"demo": {"clock": "by the clock"}, "tests": {"clock": "by the clock", "processor": "of the processor"}}
TITLES = {"demo": "seconds of the full demo", "tests": "seconds of the tests that both builds have"}

# A plug-in of pytest that leaves out every test that is not named in a file.
_CHOOSE = """
import os

def pytest_collection_modifyitems(config, items):
    with open(os.environ["TESTS_TO_RUN"]) as file:
        wanted = set(file.read().splitlines())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
    items[:] = [item for item in items if item.nodeid in wanted]
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Args:
        arguments: The command line; the process's own if left out.

    Raises:
        ConfigError: If there is no such build, or something in one of the two fails.
    """
    parser = Parser("python -m benchmarks.builds", description=__doc__)
    parser.add_argument("commit", help="the other build")
    parser.add_argument("what", nargs="*", help=f"{' or '.join(BARS)} (default: both)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each build runs each (default: 1)")
    parser.add_argument("--out", type=Path, help="folder for builds.json")
    parser.add_argument("--tests", default="tests", help="folder or file of the tests that are run (default: tests)")
    parser.add_argument("--processes", default="2", help="how many run the tests, as make test has them (default: 2)")
    options = parser.parse_args(arguments)
    unknown = set(options.what) - set(BARS)
    if unknown:
        raise ConfigError(f"{min(unknown)!r} is neither {' nor '.join(BARS)}")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, checked_out(options.commit, Path(scratch)) as other:
        builds = dict(zip(_BUILDS, (other, Path.cwd()), strict=True))
        for what in options.what or BARS:
            measure = {"demo": _demos, "tests": _tests}[what]
            found[what] = {"bar": BARS[what], **measure(builds, Path(scratch), options)}
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                write_whole(options.out / "builds.json", json.dumps(found, indent=1) + "\n", overwrite=True)
    _print(found)


def _demos(builds: Mapping[str, Path], scratch: Path, options: Any) -> dict[str, Any]:
    rounds: list[dict[str, Any]] = []
    scores: dict[str, Any] = {}
    for number in range(options.rounds):
        rounds.append({})
        for build, tree in builds.items():
            folder = scratch / f"demo {build} {number}"
            command = [sys.executable, "-m", "vimlight", "demo", "--full", "--out", folder]
            rounds[-1][build] = _timed(command, tree, scratch)
            scores[build] = _scores(folder)
    return {"rounds": rounds, "scores": scores}


def _scores(folder: Path) -> dict[str, list[float]]:
    """Returns in percent what the methods of a demo reach with each seed, as means over tasks and shots."""
    records = read_results((folder / "results.json").read_bytes(), "results.json")["records"]
    runs = harmonic_means(folder)
    names = dict.fromkeys(record["method"] for record in records)
    found = {name: by_seed(record for record in records if record["method"] == name).values() for name in names}
    moved = {f"moved: {name}": [of[name] for of in runs] for name in runs[0]}
    return {name: [100 * value for value in values] for name, values in {**found, **moved}.items()}


def _tests(builds: Mapping[str, Path], scratch: Path, options: Any) -> dict[str, Any]:
    (scratch / "choose_tests.py").write_text(_CHOOSE)
    known = {build: _collected(tree, options.tests) for build, tree in builds.items()}
    both = [name for name in known["before"] if name in set(known["now"])]
    (scratch / "both.txt").write_text("\n".join(both))
    command = [sys.executable, "-m", "pytest", "-n", options.processes, "-q", "-p", "choose_tests", options.tests]
    rounds = [
        {build: _timed(command, tree, scratch, may_be=1, OMP_NUM_THREADS="1") for build, tree in builds.items()}
        for _ in range(options.rounds)
    ]
    return {"rounds": rounds, "in both": len(both), "lacking": sorted(set(known["before"]) - set(both))}


def _collected(tree: Path, where: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", where]
    done = subprocess.run(command, cwd=tree, env=environment_of(tree), capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def _timed(command: Sequence[str | Path], tree: Path, scratch: Path, may_be: int = 0, **more: str) -> dict[str, float]:
    """Returns the seconds that a command takes in a build, by the clock and of the processor; it says its last line."""
    environment = environment_of(tree, scratch, TESTS_TO_RUN=str(scratch / "both.txt"), **more)
    clock, processor = time.perf_counter(), _processor()
    log_file = scratch / "log.txt"
    with log_file.open("w") as log:
        done = subprocess.run(command, cwd=tree, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    last = "".join(log_file.read_text().strip().splitlines()[-1:])
    print(f"{tree.name}: {last}")
    if done.returncode > may_be:
        raise ConfigError(f"{' '.join(map(str, command[1:4]))} fails in {tree}: {last}")
    return {"clock": time.perf_counter() - clock, "processor": _processor() - processor}


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_of(content: Mapping[str, Any], clock: str) -> dict[str, float]:
    """Returns how long each build took in all rounds.

    Args:
        content: What was measured of the demo or the tests.
        clock: `"clock"` or `"processor"`.
    """
    return {build: sum(each[build][clock] for each in content["rounds"]) for build in _BUILDS}


def _print(found: Mapping[str, Any]) -> None:
    table = Table("", "", *_BUILDS, "ratio", "asked", box=box.SIMPLE_HEAD)
    for what, content in found.items():
        for clock, title in CLOCKS[what].items():
            before, now = seconds_of(content, clock).values()
            ratio, asked = f"{now / before:.3f}", f"<= {content['bar']}"
            table.add_row(TITLES[what], title, f"{before:.0f}", f"{now:.0f}", ratio, asked)
    print_whole(table)
    if "tests" in found:
        lacking = found["tests"]["lacking"]
        print(f"{found['tests']['in both']} tests in both; {len(lacking)} of the other build are not in this one")
    if "demo" in found:
        table = Table("method: %, mean ± standard deviation over seeds", *_BUILDS, box=box.SIMPLE_HEAD)
        scores = found["demo"]["scores"]
        for name in scores["now"]:
            table.add_row(name, *(mean_and_spread(scores[build][name], sign="") for build in _BUILDS))
        print_whole(table)


if __name__ == "__main__":
    guarded(main)
