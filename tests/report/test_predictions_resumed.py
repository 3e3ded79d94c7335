"""A run of `predict` that is killed goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import logging

import lightning.pytorch as pl
import pytest
from tiny_kinds import SETTINGS, scene_for
from tiny_training import midstream, scenes, tiny_backbone, trainer

from vimlight.report import predicted_parts
from vimlight.report.predictions import PredictionWriter

BATCHES = 3


class Killed(BaseException):
    pass


class Kill(pl.Callback):
    """Ends the run before the batch of this number, as nothing that is caught would, and counts what was done."""

    def __init__(self, before=None):
        self.before, self.done = before, 0

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.done == self.before:
            raise Killed
        self.done += 1


def predicted(path, model, data, before=None, **options):
    kill = Kill(before)
    run = trainer(path.parent, callbacks=[kill, PredictionWriter(str(path), **options)])
    if before is None:
        run.predict(model, datamodule=data, return_predictions=False)
    else:
        with pytest.raises(Killed):
            run.predict(model, datamodule=data, return_predictions=False)
    return kill.done


def made(kind):
    data = scenes(scene_for(kind), batch_size=8)
    return midstream(tiny_backbone(), data, task=SETTINGS[kind]), data


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(predicted_parts, "_SECONDS", 0.0)


def test_what_is_right_is_counted_over_both_runs_as_a_test_does(tmp_path, caplog):
    model, data = made("classification")
    predicted(tmp_path / "out.csv", model, data, before=2)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        predicted(tmp_path / "out.csv", model, data)
    tested = trainer(tmp_path).test(model, datamodule=data, verbose=False)[0]["test/accuracy"]
    right = round(24 * tested)
    assert 0 < right < 24
    assert f"the label is the true one of {right} of 24 labelled images: {tested:.2%}" in caplog.text


# One row an image; a file for each; several rows an image, or none.
@pytest.mark.parametrize("kind", ["classification", "segmentation", "detection"])
def test_killed_and_continued_is_uninterrupted(tmp_path, caplog, kind):
    model, data = made(kind)
    suffix = ".json" if kind == "detection" else ".csv"
    whole, broken = tmp_path / "whole" / f"out{suffix}", tmp_path / "broken" / f"out{suffix}"
    assert predicted(whole, model, data) == BATCHES
    assert predicted(broken, model, data, before=1) == 1
    assert not broken.exists()
    assert predicted(broken, model, data, before=1) == 1
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        assert predicted(broken, model, data) == 1
    assert "goes on with an interrupted run, which has predicted 16 of 24 images" in caplog.text
    assert content(broken.parent) == content(whole.parent)
    # Nothing is left out afterwards.
    assert predicted(broken, model, data, overwrite=True) == BATCHES


def test_what_was_killed_behind_the_last_batch_is_finished(tmp_path, monkeypatch):
    model, data = made("classification")
    path = tmp_path / "out.csv"

    def fails(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("vimlight.report.predictions.write_whole", fails)
        with pytest.raises(Killed):
            predicted(path, model, data)
    assert predicted(path, model, data) == 1
    assert len(path.read_text().splitlines()) == 25


def _other_weights(model, data):
    next(model.head.parameters()).data.add_(1.0)
    return model, data


def _other_images(model, data):
    return model, scenes(scene_for("classification"), batch_size=8, test_limit=20)


def _other_size(model, data):
    return model, scenes(scene_for("classification"), batch_size=8, image_size=32, resize="squash")


@pytest.mark.parametrize("change", [_other_weights, _other_images, _other_size])
def test_rows_of_another_run_are_not_mixed_in(tmp_path, change):
    model, data = made("classification")
    predicted(tmp_path / "out.csv", model, data, before=2)
    model, data = change(model, data)
    assert predicted(tmp_path / "out.csv", model, data) == BATCHES
    assert predicted(tmp_path / "new.csv", model, data) == BATCHES
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "new.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_a_damaged_part_is_predicted_again(tmp_path):
    model, data = made("classification")
    predicted(tmp_path / "out.csv", model, data, before=2)
    first = min(tmp_path.rglob("part-*.json"))
    first.write_bytes(first.read_bytes()[:-5])
    assert predicted(tmp_path / "out.csv", model, data) == 2


def test_a_run_over_some_batches_starts_anew(tmp_path):
    model, data = made("classification")
    predicted(tmp_path / "out.csv", model, data, before=2)
    writer = PredictionWriter(str(tmp_path / "out.csv"))
    trainer(tmp_path, callbacks=[writer], limit_predict_batches=1).predict(model, datamodule=data)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 9


def test_images_whose_files_are_gone_are_predicted_again(tmp_path):
    model, data = made("segmentation")
    whole, broken = tmp_path / "whole" / "out.csv", tmp_path / "broken" / "out.csv"
    predicted(whole, model, data)
    predicted(broken, model, data, before=2)
    min(broken.parent.rglob("*.png")).unlink()
    assert predicted(broken, model, data) == 2
    assert content(broken.parent) == content(whole.parent)
