"""Runs of Lightning say how far they are in lines, where there is no terminal."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from vimlight import progress
from vimlight.commands.train import TrainingCLI
from vimlight.report.lines import ProgressLines


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_SILENCE", 0.0)
    return pl.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, max_epochs=2, limit_train_batches=3,
        limit_val_batches=2, limit_test_batches=2, limit_predict_batches=2, num_sanity_val_steps=0, logger=False,
        enable_checkpointing=False, enable_model_summary=False, callbacks=[ProgressLines()],
    )  # fmt: skip


@pytest.mark.parametrize(("stage", "total"), [("fit", 6), ("validate", 2), ("test", 2), ("predict", 2)])
def test_every_stage_counts_its_batches(trainer, capsys, stage, total):
    getattr(trainer, stage)(BoringModel())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{stage}: ")]
    for done in range(1, total + 1):
        assert any(line.startswith(f"{stage}: {done} of {total} done") for line in lines), lines
    if stage == "fit":
        assert "fit: 6 of 6 done (epoch 2), 0 s" in lines


class Broken(BoringModel):
    def training_step(self, batch, batch_idx):
        raise ZeroDivisionError


def test_a_run_that_breaks_off_ends_its_lines(trainer, capsys):
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Broken())
    assert trainer.callbacks[0]._progress is None


@pytest.mark.parametrize(("terminal", "chosen"), [(False, False), (True, False), (False, True), (True, True)])
def test_lines_stand_for_a_bar_that_nobody_chose_or_no_terminal_can_show(monkeypatch, terminal, chosen):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    made = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    for name in ("_plugins", "_callbacks"):
        monkeypatch.setattr(TrainingCLI, name, lambda self: [])
    monkeypatch.setattr(TrainingCLI, "_logging_trainer", lambda self, **_: made)
    bars = [made.progress_bar_callback] if chosen else []
    monkeypatch.setattr(TrainingCLI, "_chosen_callbacks", lambda self: bars)
    found = TrainingCLI.instantiate_trainer(TrainingCLI.__new__(TrainingCLI))
    assert isinstance(found.progress_bar_callback, ProgressLines) != (terminal and chosen)
