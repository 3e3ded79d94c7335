"""What W&B is told by a run that makes a module and by one that uses it, read back from what they leave offline."""

from __future__ import annotations

import pytest
from lightning.pytorch.loggers import CSVLogger
from tiny_report import TinyModule, loader

from vimlight.report.curves import RunCurves
from vimlight.report.facts import Facts, facts_of

pytestmark = pytest.mark.slow


def test_runs_are_named_by_what_they_are(runs):
    run = runs["downstream"].wandb.run
    assert run.display_name == "ens_moe digits 3-shot, seed 3"
    assert run.run_group == "ens_moe digits 3-shot"
    assert list(run.tags) == ["downstream", "ens_moe", "vit", "digits", "3-shot"]
    assert run.job_type == "downstream"


@pytest.mark.parametrize("name", ["midstream", "downstream"])
def test_short_runs_have_curves_of_every_step(runs, name):
    steps, run = runs[name].steps, runs[name].wandb
    assert 5 <= steps <= 50
    for key in ("train/loss_step", "lr"):
        assert [step for step, _ in run.curve(key)] == list(range(steps))
    rates = [rate for _, rate in run.curve("lr")]
    assert rates[0] > rates[-1] > 0


def test_gates_are_values_over_time(runs):
    steps, run = runs["downstream"].steps, runs["downstream"].wandb
    curve = run.curve("gate/birds")
    assert [step for step, _ in curve] == list(range(steps))
    assert curve[0][1] != curve[-1][1]


def test_the_summary_has_the_best(runs):
    metrics = runs["downstream"].wandb.metrics()
    assert metrics["val/accuracy"].summary.max
    assert not metrics["val/accuracy"].summary.min
    assert metrics["val/loss"].summary.min
    assert metrics["val/loss"].step_metric == "trainer/global_step"


def test_tables_and_charts_are_there(runs):
    keys = {key for row in runs["downstream"].wandb.history() for key in row}
    assert {"gates", "val/predictions", "val/confusion", "ranking"} <= keys
    assert any(key.startswith("val/confusion_chart") for key in keys)


def test_modules_lead_from_the_run_that_makes_them_to_those_that_use_them(runs):
    (made,) = [each for each in runs["midstream"].wandb.of("artifact") if each.type == "module"]
    assert made.name == "module-birds"
    assert not made.use_after_commit
    assert {entry.path for entry in made.manifest.contents} == {"birds.safetensors", "card.json"}
    (used,) = [each for each in runs["downstream"].wandb.of("artifact") if each.type == "module"]
    assert used.use_after_commit
    assert used.digest == made.digest
    assert '"convpass"' in made.metadata
    (model,) = [each for each in runs["downstream"].wandb.of("artifact") if each.type == "downstream-model"]
    assert "birds" in model.metadata


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(12, None, 1), (1000, None, 5), (10**6, None, 50), (12, 7, 7), (float("inf"), None, 50)],
)
def test_how_often_is_logged_follows_the_length_of_the_run(steps, every, expected):
    class Trainer:
        log_every_n_steps = every or 50
        estimated_stepping_batches = steps

    trainer, curves = Trainer(), RunCurves(every)
    curves.setup(trainer, None, "fit")
    assert trainer.log_every_n_steps == (every or 1)
    curves.on_train_start(trainer, None)
    assert trainer.log_every_n_steps == expected


def test_facts_of_configs_of_all_kinds():
    assert facts_of({}) == Facts("", "", "", "", "", None, None)
    assert facts_of({"model": 3, "data": {"init_args": [1]}, "seed_everything": True}).name == ""
    midstream = {"class_path": "vimlight.MidstreamModule",
                 "init_args": {"name": "birds", "plugin": "lora", "backbone": "vit"}}  # fmt: skip
    data = {"init_args": {"dataset": "manifest", "dataset_args": {"path": "/data/birds.csv"}}}
    facts = facts_of({"model": midstream, "data": data, "seed_everything": 0})
    assert facts.name == "birds lora manifest/birds, seed 0"
    assert facts.tags == ["midstream", "lora", "vit", "manifest/birds"]


def test_other_loggers_have_the_same_curves(tmp_path, make_trainer):
    trainer = make_trainer(RunCurves(), logger=CSVLogger(tmp_path, name="log"), max_epochs=2)
    trainer.fit(TinyModule(), loader(), loader())
    header, *rows = (tmp_path / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    place = header.split(",").index("lr")
    assert len([row for row in rows if row.split(",")[place]]) == 8
