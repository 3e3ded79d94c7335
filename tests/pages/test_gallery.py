"""`vimlight zoo gallery`: a card for each module, what a stranger wrote as letters, and the workflow that builds it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from browser import CHROMIUM, Browser, shot

from vimlight import cli
from vimlight.backbone import create_backbone
from vimlight.errors import ZooError
from vimlight.pages.gallery import build_gallery
from vimlight.plugins import create_plugin
from vimlight.zoo import Zoo

WORKFLOW = Path(__file__).parents[2] / "configs" / "zoo" / "pages.yml"
CARDS = {
    "letters": {"task": "classification", "dataset": "scenes", "classes": ["a", "b"], "license": "apache-2.0",
                "samples": {"train": 8000}, "date": "2026-01-02",
                "metrics": {"val": {"loss": 0.3, "accuracy": 0.9375}}, "text": "Capital <letters>."},
    "depth": {"task": "depth", "metrics": {"val": {"rmse": 0.25}}, "date": "2026-03-04"},
    "bare": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A zoo of three modules, and a file that is none."""
    zoo = Zoo(tmp_path_factory.mktemp("zoos") / "mine")
    backbone = create_backbone("test_vit", img_size=32)
    for number, (name, card) in enumerate(CARDS.items()):
        zoo.add(name, create_plugin("convpass", backbone, hidden=2 + number), card=card)
    return zoo


def test_cards_say_what_a_module_learnt_how_well_and_how_it_is_used(zoo):
    html = build_gallery(zoo, url="hf://me/zoo").render()
    assert "<h1>mine</h1>" in html
    assert html.count("<article") == 3
    for text in ("Classification of 2 classes, learnt from scenes (8,000 images).", "<dd>93.8 %</dd>",
                 "<dd>apache-2.0</dd>",
                 "<dd>none stated</dd>", "<dt>val/rmse</dt><dd>0.25</dd>", "Capital &lt;letters&gt;.",
                 "vimlight zoo pull hf://me/zoo letters\nvimlight fit"):  # fmt: skip
        assert text in html, text
    assert re.search(r"<dt>size</dt><dd>\d+ kB</dd>", html)


def test_what_is_the_same_for_all_is_no_choice(zoo):
    html = build_gallery(zoo).render()
    assert re.findall(r'data-facet="(\w+)"', html) == ["task", "licence"]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</pre><b>"])
def test_what_strangers_write_on_cards_stays_letters(tmp_path, name):
    zoo = Zoo(tmp_path)
    card = {
        "text": name,
        "dataset": name,
        "license": name,
        "author": name,
        "classes": [name],
        "task": name,
        "date": name,
    }
    zoo.add("a", create_plugin("convpass", create_backbone("test_vit", img_size=32), hidden=2), card=card)
    html = build_gallery(zoo, title=name, url=name).render()
    assert name not in html
    assert html.count("<script>") == 1


def test_a_file_that_cannot_be_read_hides_no_other(zoo, tmp_path):
    copy = Zoo(tmp_path / "copy")
    zoo.export(["letters"], copy.path)
    (copy.path / "broken.safetensors").write_bytes(b"x")
    html = build_gallery(copy).render()
    assert html.count("<article") == 1
    assert "broken: broken.safetensors" in html


def test_an_empty_zoo_and_a_page_that_is_there_are_refused(zoo, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    with pytest.raises(ZooError, match="none' has no module to show"):
        build_gallery(Zoo(tmp_path / "none"))
    arguments = ["zoo", "gallery", "--zoo", str(zoo.path), "--out", str(tmp_path / "site")]
    cli.main(arguments)
    assert "index.html written" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert "index.html' exists; choose another path or pass --overwrite\n" in capsys.readouterr().err
    cli.main([*arguments, "--overwrite"])


def test_the_workflow_checks_the_zoo_and_builds_what_it_publishes(zoo, tmp_path, monkeypatch, capsys):
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    steps = jobs["site"]["steps"]
    monkeypatch.chdir(tmp_path)
    zoo.export(list(zoo), tmp_path / "zoo")
    commands = [step["run"] for step in steps if step.get("run", "").startswith("vimlight")]
    for command in commands:
        cli.main(shlex.split(command)[1:])
    assert [command.split()[2] for command in commands] == ["verify", "gallery"]
    (published,) = [step["with"]["path"] for step in steps if "upload-pages" in step.get("uses", "")]
    assert (tmp_path / published / "index.html").is_file()
    assert jobs["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser")
def test_cards_are_searched_chosen_and_sorted(zoo, tmp_path):
    page = build_gallery(zoo).save(tmp_path / "index.html")
    browser = Browser(tmp_path / "profile")
    shown = "[...document.querySelectorAll('.card')].filter((c) => c.offsetParent).map((c) => c.dataset.name)"
    try:
        browser.open(page, height=790)
        browser.screenshot(shot("gallery", tmp_path))
        assert browser.run(shown) == ["bare", "depth", "letters"]
        browser.run("f = document.querySelector('input'); f.value = 'capital'; f.dispatchEvent(new Event('input'))")
        assert browser.run(shown) == ["letters"]
        assert browser.run("document.querySelector('output').value") == "1 of 3 modules"
        browser.run("f.value = ''; s = document.querySelector('[data-facet=task]'); s.value = 'depth'; "
                    "s.dispatchEvent(new Event('change'))")  # fmt: skip
        assert browser.run(shown) == ["depth"]
        browser.run("s.value = ''; s.dispatchEvent(new Event('change')); o = document.querySelector('[data-sort]')")
        orders = {"date": ["bare", "depth", "letters"], "size": ["letters", "depth", "bare"]}
        for order, names in orders.items():
            browser.run(f"o.value = '{order}'; o.dispatchEvent(new Event('change'))")
            assert browser.run(shown) == names, order
        assert browser.said == []
    finally:
        browser.close()
