"""W&B: a run for each result, all in one group, and one with the table."""

from __future__ import annotations

import pytest
from tiny_plans import write

from vimlight import cli


class Run:
    """Stands for a run of W&B."""

    seen = ()

    def __init__(self, **options):
        self.options, self.logged = options, {}
        Run.seen.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def log(self, content):
        self.logged.update(content)


@pytest.mark.usefixtures("in_process")
def test_results_are_runs_of_one_group_and_the_table_is_one_more(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(Run, "seen", [])
    monkeypatch.setattr(wandb, "init", Run)
    plan = write(tmp_path, methods=["none", "uniform"], seeds=[3])
    cli.main(["compare", plan, "--out", str(tmp_path / "out"), "--wandb", "mine"])
    fits, [summary] = Run.seen[:-1], Run.seen[-1:]
    assert {(run.options["project"], run.options["group"]) for run in Run.seen} == {("mine", "out")}
    assert [(run.options["job_type"], run.options["config"]["method"]) for run in fits] == [
        ("fit", "none"), ("fit", "uniform"),
    ]  # fmt: skip
    for run in fits:
        assert run.options["config"]["seed"] == 3
        assert run.logged["value"] == run.logged["accuracy"]
    assert summary.options["job_type"] == "summary"
    [table] = summary.logged.values()
    assert [row[0] for row in table.data] == ["none", "uniform"]
    # What was there already is not logged again.
    cli.main(["compare", plan, "--out", str(tmp_path / "out"), "--wandb", "mine"])
    assert len(Run.seen) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_offline_runs_lie_in_the_folder(tmp_path):
    pytest.importorskip("wandb")
    plan = write(tmp_path, methods=["none"], midstream=None, seeds=[0])
    cli.main(["compare", plan, "--out", str(tmp_path / "out"), "--wandb", "mine"])
    assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*"))) == 2
