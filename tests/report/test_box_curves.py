"""Precision over recall of boxes: from a run of a detection task to its files, and from these to a page."""

from __future__ import annotations

import pytest
from lightning.pytorch.loggers import CSVLogger
from tiny_training import midstream, scenes, tiny_backbone, trainer

from vimlight.pages import build_report
from vimlight.pages.sources import find
from vimlight.pages.sources.fit import Fit
from vimlight.report.callbacks import RunReport


def test_the_mean_precision_of_the_curves_that_a_page_draws_is_the_map_50_of_the_run(tmp_path):
    data = scenes("objects", train=16)
    task = {"kind": "detection", "width": 32, "levels": 2, "convs": 1, "score_threshold": 0.0}
    run = trainer(tmp_path, logger=CSVLogger(tmp_path, name="log"), callbacks=[RunReport(images=0)])
    (scores,) = run.validate(midstream(tiny_backbone(), data, task=task), data, verbose=False)
    (fit,) = find([tmp_path]).of(Fit)
    curves = fit.precision_recall["val"]
    assert set(curves) <= set(data.class_names)
    for points in curves.values():
        assert [recall for recall, _ in points] == pytest.approx([1 - step / 100 for step in range(101)], abs=1e-6)
    precision = [precision for points in curves.values() for _, precision in points]
    assert scores["val/map_50"] > 0
    assert sum(precision) / len(precision) == pytest.approx(scores["val/map_50"])
    page = build_report([tmp_path]).render()
    assert "Precision and recall" in page
