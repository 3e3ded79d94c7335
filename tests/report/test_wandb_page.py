"""A page rebuilt from the file of an offline W&B run alone, read, and looked at in a browser."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from browser import CHROMIUM, Browser, shot
from PIL import Image

from vimlight.pages import build_report
from vimlight.pages.sources import find
from vimlight.pages.sources.fit import Fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def offline(runs, tmp_path_factory):
    """What W&B left of the downstream run and of the midstream run, and nothing else."""
    root = tmp_path_factory.mktemp("offline")
    for name, run in runs.items():
        shutil.copytree(run.root / "wandb", root / name, symlinks=True)
    return root


def test_the_file_alone_says_what_the_run_directory_says(offline, runs):
    (alone,) = find([offline / "downstream"]).of(Fit)
    (written,) = find([runs["downstream"].root / "csv"]).of(Fit)
    assert alone.curves.keys() >= written.curves.keys() - {"epoch"}
    for key, points in written.curves.items():
        np.testing.assert_allclose(alone.curves[key], points, rtol=1e-5)
    assert alone.best == pytest.approx(written.best)
    assert [(link.name, link.used) for link in alone.links] == [(link.name, link.used) for link in written.links]
    for kind in ("confusion", "precision_recall"):
        assert getattr(alone, kind)["val"] == getattr(written, kind)["val"], kind
    bins = [each for each in written.reliability["val"] if each.images]
    np.testing.assert_allclose(alone.reliability["val"], bins)
    assert alone.gates == written.gates
    assert alone.ranking == written.ranking
    assert alone.versions == written.versions
    assert alone.facts == written.facts
    assert alone.title == "ens_moe digits 3-shot, seed 3"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no browser")
@pytest.mark.parametrize("name", ["offline", "report"])
def test_the_page_in_a_browser(name, browser, offline, runs, tmp_path):
    """Of what W&B left alone, and of the directories of the runs."""
    found = [offline] if name == "offline" else [run.root / "csv" for run in runs.values()]
    browser.open(build_report(found).save(tmp_path / "page.html"), height=1250)
    shown = browser.run("[...document.querySelectorAll('h2')].map((h) => h.textContent)")
    made = browser.run("[...document.querySelectorAll('td')].map((cell) => cell.textContent)")
    assert {"Runs", "Curves", "Gates", "Confusion", "Precision and recall", "Reliability", "Artifacts"} <= set(shown)
    assert "module-birds" in made
    browser.screenshot(shot(name, tmp_path))
    with Image.open(shot(name, tmp_path)) as image:
        assert np.asarray(image.convert("L")).std() > 10
    assert browser.said == []
