"""The plans of the benchmarks: they are read, and hold what the tables of the results are about."""

from __future__ import annotations

from pathlib import Path

from vimlight.comparison.reading import read_plan
from vimlight.tasks import list_tasks

FOLDER = Path(__file__).parents[2] / "benchmarks"


def kinds(tasks):
    return {task.task if isinstance(task.task, str) else task.task["kind"] for task in tasks}


def test_every_kind_is_compared():
    plan = read_plan(FOLDER / "tasks.yaml")
    assert kinds(plan.downstream) == set(list_tasks())
    assert [method.label for method in plan.methods] == ["frozen backbone", "ViM"]


def test_every_module_alone_is_compared():
    tasks, gain = read_plan(FOLDER / "tasks.yaml"), read_plan(FOLDER / "gain.yaml")
    # One folder for both: modules are trained once.
    assert gain.midstream[: len(tasks.midstream)] == tasks.midstream
    assert [method.modules for method in gain.methods[1:]] == [[task.name] for task in gain.midstream]
    assert len(kinds(gain.downstream)) >= 6
