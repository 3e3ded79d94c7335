"""Which part of a run waits: with slow data the model, with a slow model nobody."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vimlight.errors import ConfigError
from vimlight.report.waiting import WaitMeter


class Slow(Dataset):
    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 6

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return torch.ones(2)


class Model(pl.LightningModule):
    def __init__(self, seconds):
        super().__init__()
        self.layer, self.seconds = nn.Linear(2, 1), seconds

    def training_step(self, batch, index):
        time.sleep(self.seconds)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path, data, model):
    meter = WaitMeter()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[meter], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=path,
    )  # fmt: skip
    trainer.fit(Model(model), DataLoader(Slow(data)))
    return meter, trainer


@pytest.mark.parametrize(("data", "model", "low", "high"), [(0.15, 0.0, 0.6, 1.0), (0.0, 0.15, 0.0, 0.3)])
def test_the_part_that_waits_is_named(tmp_path, caplog, data, model, low, high):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        meter, trainer = fit(tmp_path, data, model)
    assert low <= meter.share <= high
    assert trainer.progress_bar_metrics["data_wait"] == pytest.approx(meter.share, abs=0.01)
    said = f"waited for its data {meter.share:.0%} of the last epoch: raise data.num_workers (now 0)"
    assert (said in caplog.text) == (meter.share > 0.3)


def test_a_share_is_a_share():
    with pytest.raises(ConfigError, match="advise_above must be from 0 to 1, got 2"):
        WaitMeter(2)


def test_the_clock_of_a_run_that_goes_on_within_an_epoch_starts_with_it():
    meter, module = WaitMeter(), SimpleNamespace(device=torch.device("cpu"), log=lambda *_, **__: None)
    meter.on_train_start(None, module)
    meter.on_train_batch_start(None)
    time.sleep(0.05)
    meter.on_train_batch_end(None, module)
    assert meter.share < 0.5
