"""Where W&B refuses or cannot be reached, a run is kept offline, and that is said once."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from vimlight.errors import ConfigError
from vimlight.report.wandb_runs import open_wandb

wandb = pytest.importorskip("wandb")
REFUSALS = {
    "no network": wandb.errors.CommError("Timed out while retrying: connection refused\nConsider increasing"),
    "bad key": wandb.errors.AuthenticationError("WANDB_API_KEY invalid: API key must have 40+ characters, has 5."),
    "no key": wandb.errors.UsageError("No API key configured. Use `wandb login` to log in."),
}


@pytest.fixture
def online(monkeypatch):
    """An environment in which runs start online."""
    monkeypatch.delenv("WANDB_INIT_TIMEOUT", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "teardown", lambda: None)


@pytest.mark.parametrize("refusal", list(REFUSALS))
def test_a_refusal_is_said_once_and_all_runs_after_it_are_offline(online, recwarn, refusal):
    def start():
        if os.environ["WANDB_MODE"] == "online":
            raise REFUSALS[refusal]
        return SimpleNamespace(dir="wandb/offline-run-1/files")

    for _ in range(3):
        assert open_wandb(start).dir.startswith("wandb/offline")
    (said,) = [str(each.message) for each in recwarn]
    assert said.startswith(f"W&B starts no run ({str(REFUSALS[refusal]).partition(chr(10))[0]}); it is kept offline")
    assert said.endswith("'wandb sync wandb/offline-run-1' uploads it later")
    assert int(os.environ["WANDB_INIT_TIMEOUT"]) <= 20


def test_who_insists_on_being_online_is_refused_in_a_line(online):
    def start():
        raise REFUSALS["bad key"]

    with pytest.raises(ConfigError, match=r"W&B starts no run \(WANDB_API_KEY invalid.*\), not even offline; leave"):
        open_wandb(start)


def test_other_errors_are_nobody_elses(online):
    with pytest.raises(ZeroDivisionError):
        open_wandb(lambda: 1 / 0)
    assert os.environ["WANDB_MODE"] == "online"


@pytest.mark.slow
def test_the_library_itself_goes_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    for name, value in {"API_KEY": "a" * 40, "BASE_URL": "http://127.0.0.1:9", "INIT_TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    # Whoever used it before made it read another environment.
    wandb.teardown()
    with pytest.warns(UserWarning, match=r"W&B starts no run \(.*refused"):
        run = open_wandb(lambda: wandb.init(project="mine", dir=str(tmp_path)))
    run.log({"loss": 1.0})
    run.finish()
    assert len(list((Path(tmp_path) / "wandb").glob("offline-run-*/*.wandb"))) == 1
    wandb.teardown()
