"""MLflow: what it refuses is said in a line before the work, and what the logger was given wins."""

from __future__ import annotations

import os

import pytest
from lightning.pytorch.loggers import MLFlowLogger

from vimlight.errors import ConfigError
from vimlight.report.dashboards import Dashboards
from vimlight.report.dashboards.mlflow import allow_file_store
from vimlight.report.facts import facts_of

exceptions = pytest.importorskip("mlflow.exceptions")


class Fake(MLFlowLogger):
    """Keeps what a run is started with."""

    def __init__(self, refusal=None, **options):
        self.refusal, self._run_name, self.tags = refusal, options.get("run_name"), options.get("tags")

    @property
    def experiment(self):
        if self.refusal:
            raise exceptions.MlflowException(self.refusal)
        return self


def test_a_refusal_is_a_line(tmp_path):
    logger = Fake("no such server\nat all")
    with pytest.raises(ConfigError, match=r"^MLflow starts no run \(no such server\); see tracking_uri, or leave the"):
        Dashboards([logger], tmp_path).begin(facts_of({}))


@pytest.mark.parametrize("name", [None, "mine"])
def test_runs_are_named_and_tagged_by_what_they_are(name, tmp_path):
    logger = Fake(run_name=name, tags={"seed": "mine"})
    Dashboards([logger], tmp_path).begin(facts_of({"seed_everything": 3, "data": {"init_args": {"dataset": "digits"}}}))
    assert logger._run_name == (name or "digits, seed 3")
    assert logger.tags == {"group": "digits", "dataset": "digits", "seed": "mine"}


@pytest.mark.parametrize(("before", "after"), [(None, "true"), ("false", "false")])
def test_files_are_allowed_unless_somebody_forbids_them(before, after, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", before or "")
    if before is None:
        del os.environ["MLFLOW_ALLOW_FILE_STORE"]
    allow_file_store()
    assert os.environ["MLFLOW_ALLOW_FILE_STORE"] == after
