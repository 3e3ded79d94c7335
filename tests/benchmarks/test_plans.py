"""The plans of the benchmarks: they are read, and hold what the tables in the README are about."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from vimlight.comparison.reading import read_plan
from vimlight.data import SOURCES
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


@pytest.fixture
def own_sources(monkeypatch):
    """The data sets that the benchmark registers, for one test: others look at every one there is."""
    monkeypatch.setattr(SOURCES, "_entries", {name: SOURCES[name] for name in SOURCES})
    monkeypatch.delitem(sys.modules, "benchmarks.real.sources", raising=False)
    importlib.import_module("benchmarks.real.sources")
    yield
    del sys.modules["benchmarks.real.sources"]


@pytest.mark.usefixtures("own_sources")
def test_no_module_has_seen_the_images_that_it_is_judged_by():
    plan = read_plan(FOLDER / "real" / "vim.yaml")
    assert {"fashion_part", "rotation"} < set(SOURCES)
    [fashion] = [task for task in plan.downstream if task.dataset == "fashion_mnist"]
    assert fashion.without == ["fashion", "rotation"]
