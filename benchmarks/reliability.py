"""`python -m benchmarks.reliability RESULTS.xml ...`: writes docs/reliability.md from runs of the tests of faults."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from vimlight.files.atomic import write_whole

__all__ = ["FILE", "PROMISES", "Found", "Promise", "found_in", "page"]

FILE = Path(__file__).parents[1] / "docs" / "reliability.md"
_INTRODUCTION = """# What holds under faults

Written by `make faults`, which runs the tests that break things and counts what they broke; another test checks that
every test that is named here exists. In no case was there a half-written file, another number without a word, or a
traceback: with one, that test fails and this page is not written. A part of them runs in every `make test`.

"""


class Promise(NamedTuple):
    """What is promised.

    Attributes:
        text: In words.
        tests: The tests that would fail without it, as `file::function` below `tests`.
    """

    text: str
    tests: Sequence[str]


class Found(NamedTuple):
    """What came out of runs.

    Attributes:
        passed: How many cases passed, by test.
        failed: The cases that failed.
        counts: Sums of what the tests recorded, by test and what was counted.
    """

    passed: Counter[str]
    failed: list[str]
    counts: Counter[tuple[str, str]]


PROMISES = [
    Promise(
        "Whoever is killed at any change of the file system leaves what stood before, or the new thing whole; nothing "
        "is left over after the next writer, and the same command succeeds.",
        ["faults/test_kills.py::test_writers_survive_kills_at_every_change"],
    ),
    Promise(
        "So does who is killed within a file.",
        ["faults/test_kills.py::test_writers_survive_kills_within_files"],
    ),
    Promise(
        "`fit`, `predict`, `cache build` and `compare` that are killed at any instant leave what they write whole or "
        "not at all, and end with the same weights, table, cache and results when they are started again.",
        ["faults/test_commands.py::test_a_command_killed_at_seeded_instants"],
    ),
    Promise(
        "Every module of the package that changes files by itself is known, and tried.",
        ["faults/test_kills.py::test_every_module_that_changes_files_by_itself_is_known_and_tried"],
    ),
    Promise(
        "A full disk is one or two lines; what stood before stands, and nothing is left over.",
        [
            "faults/test_kills.py::test_writers_survive_a_kill_and_a_full_disk",
            "faults/test_full_disk.py::test_files_that_may_grow_a_little",
            "faults/test_full_disk.py::test_a_disk_of_2_mb",
        ],
    ),
    Promise(
        "Damaged modules, heads, adapters, checkpoints, caches, results, backbones and tasks are refused in one or two "
        "lines, or read as they were.",
        [
            "faults/test_damage.py::test_damaged_files_are_refused_or_read_as_they_were",
            "faults/test_damage.py::test_damaged_files_many_times",
        ],
    ),
    Promise(
        "So are checkpoints that lack an entry or hold another one, and images, masks and maps, whatever their parsers "
        "raise.",
        [
            "faults/test_damaged_checkpoints.py::test_entries_that_are_missing_or_of_another_type",
            "faults/test_images.py::test_damaged_images",
            "faults/test_images.py::test_whatever_a_parser_of_images_raises",
        ],
    ),
    Promise(
        "Whatever stands in a file that a parser reads, texts without end among it, is a value or an error of one or "
        "two lines.",
        [
            "faults/test_fuzz.py::test_what_once_failed",
            "faults/test_fuzz.py::test_texts_without_end",
            "faults/test_fuzz.py::test_a_few_changes",
            "faults/test_fuzz.py::test_many_changes",
        ],
    ),
    Promise(
        "Nothing is unpickled: a pickle is refused at every entry point, under whatever name, and every place that "
        "could unpickle one is known.",
        [
            "faults/test_pickles.py::test_no_reader_runs_a_pickle",
            "faults/test_pickles.py::test_every_place_that_could_unpickle_is_known_and_forbids_it",
        ],
    ),
    Promise(
        "SIGTERM and Ctrl-C end a training between two steps, with a checkpoint from which it goes on exactly, and all "
        "else at once, with 143 and 130; a job of Slurm is requeued.",
        [
            "faults/test_runs.py::test_a_signal_ends_a_training_between_steps_and_it_goes_on_exactly",
            "faults/test_runs.py::test_a_signal_before_the_first_step_or_after_the_last_one_ends_at_once",
            "faults/test_runs.py::test_signals_end_what_is_no_training_at_once",
            "faults/test_runs.py::test_a_job_of_slurm_is_requeued_and_goes_on_exactly",
        ],
    ),
    Promise(
        "Of processes that write the same thing at the same moment one or all succeed, the others say so, and what is "
        "there is whole.",
        [
            "faults/test_races.py::test_processes_that_write_the_same",
            "faults/test_races.py::test_of_those_who_want_a_name_in_a_zoo_one_gets_it",
            "faults/test_races.py::test_every_run_has_a_directory_of_its_own",
            "faults/test_races.py::test_builds_of_one_cache_never_mix",
        ],
    ),
    Promise(
        "Who reads while something is replaced finds the old one or the new one.",
        [
            "faults/test_races.py::test_those_who_read_a_module_while_it_is_replaced_find_one_or_the_other",
            "faults/test_races.py::test_those_who_open_a_cache_while_it_is_replaced_find_one",
        ],
    ),
]


def found_in(files: Iterable[Path]) -> Found:
    """Reads what pytest wrote with `--junit-xml`.

    Args:
        files: The files, of one or several runs.
    """
    found = Found(Counter(), [], Counter())
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            *folders, module = case.get("classname", "").split(".")
            name = "/".join([*folders[1:], f"{module}.py"]) + "::" + case.get("name", "").partition("[")[0]
            if case.find("failure") is not None or case.find("error") is not None:
                found.failed.append(name)
            elif case.find("skipped") is None:
                found.passed[name] += 1
            for entry in case.iter("property"):
                value = entry.get("value", "")
                if value.isdigit():
                    found.counts[name, entry.get("name", "")] += int(value)
    return found


def page(found: Found) -> str:
    """Returns the page.

    Args:
        found: What came out of runs.
    """
    lines = ["| promise | tests | figure |", "| --- | --- | --- |"]
    for promise in PROMISES:
        tests = ", ".join(f"`{test}`" for test in promise.tests)
        lines.append(f"| {promise.text} | {tests} | {_figure(promise, found)} |")
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _figure(promise: Promise, found: Found) -> str:
    cases = sum(found.passed[test] for test in promise.tests)
    counted: Counter[str] = Counter()
    for (test, what), count in found.counts.items():
        if test in promise.tests:
            counted[what] += count
    if not cases:
        return "not in this run"
    return ", ".join([*(f"{count:,} {what}" for what, count in counted.items()), f"{cases} cases"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page.

    Args:
        arguments: The files; the process's own if left out.
    """
    files = [Path(name) for name in (sys.argv[1:] if arguments is None else arguments)]
    found = found_in(files)
    if not files or found.failed:
        sys.exit(f"{len(found.failed)} tests failed: {', '.join(found.failed)}" if files else __doc__)
    print(f"{write_whole(FILE, page(found), overwrite=True)} written")


if __name__ == "__main__":
    main()
