"""A silent trainer for the tests of reports, and two runs that every logger was told of."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import yaml
from kept import loggers_in
from tiny_training import digits, downstream, midstream, scenes, tiny_backbone, trainer
from wandb_record import read_run

from vimlight.report.callbacks import RunReport
from vimlight.report.curves import RunCurves
from vimlight.report.dashboards import Dashboards
from vimlight.report.facts import facts_of
from vimlight.report.lineage import Lineage

CONFIGS = {
    "midstream": {
        "seed_everything": 3,
        "model": {"class_path": "vimlight.MidstreamModule",
                  "init_args": {"backbone": {"name": "vit"}, "plugin": {"kind": "convpass"}, "name": "birds"}},
        "data": {"class_path": "M", "init_args": {"dataset": "scenes", "dataset_args": {"task": "shapes"}}},
    },
    "downstream": {
        "seed_everything": 3,
        "model": {"class_path": "vimlight.DownstreamModule",
                  "init_args": {"backbone": {"name": "vit"}, "aggregator": {"how": "ens_moe"}}},
        "data": {"class_path": "D", "init_args": {"dataset": "digits", "shots": 3}},
    },
}  # fmt: skip


@pytest.fixture
def make_trainer(tmp_path):
    """Returns a function that builds a silent trainer on the CPU."""

    def build(*callbacks: pl.Callback, **settings: object) -> pl.Trainer:
        silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        common = {"default_root_dir": tmp_path / "run", "accelerator": "cpu", "logger": False, "max_epochs": 1}
        return pl.Trainer(callbacks=list(callbacks), **{**common, **silent, **settings})

    return build


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A midstream run and a downstream run with its module, each with a logger of every kind."""
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    root, backbone, found = tmp_path_factory.mktemp("runs"), tiny_backbone(), {}
    made = {
        "midstream": (partial(midstream, name="birds"), scenes()),
        "downstream": (partial(downstream, head="linear"), digits(batch_size=16)),
    }
    for name, (make, data) in made.items():
        wandb.teardown()
        loggers = loggers_in(root / name)
        Dashboards(loggers, root / name).begin(facts_of(CONFIGS[name]))
        for logger in loggers:
            logger.log_hyperparams(CONFIGS[name])
        callbacks = [RunReport(images=2), RunCurves(), Lineage()]
        fit = trainer(root / name, 3, logger=loggers, callbacks=callbacks, enable_checkpointing=True)
        fit.fit(make(backbone, data, root / "zoo"), datamodule=data)
        wandb.finish()
        wandb.teardown()
        (root / name / "csv" / "version_0" / "config.yaml").write_text(yaml.safe_dump(CONFIGS[name]))
        found[name] = SimpleNamespace(root=root / name, steps=fit.global_step, wandb=read_run(root / name))
    return found
