"""Images that were taken for another class, as small pictures in the section on confusion."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest
import yaml
from PIL import Image
from tiny_results import write_fit

from vimlight.errors import ConfigError
from vimlight.pages import build_report

ROWS = [
    ("a.png", "cat", "cat 2", 0.6), ("b.png", "cat 2", "cat", 0.9), ("c.png", "cat", "cat", 0.99),
    ("gone.png", "cat", "cat 2", 0.95), ("../out.png", "cat", "cat 2", 0.97), ("broken.png", "cat", "cat 2", 0.98),
    ("d.png", "cat|cat 2", "cat", 0.5), ("big.png", "cat", "cat 2", 0.96),
]  # fmt: skip
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with predictions, and a folder of the images that are left."""
    monkeypatch.setattr("vimlight.pages.sources.mistakes._MOST_PIXELS", 50_000)
    log = write_fit(tmp_path / "run")
    images = tmp_path / "images"
    images.mkdir()
    for name, colour in {"a": RED, "b": BLUE, "c": RED, "d": RED}.items():
        Image.new("RGB", (300, 150), colour).save(images / f"{name}.png")
    Image.new("RGB", (9, 9), RED).save(tmp_path / "out.png")
    Image.new("L", (300, 200)).save(images / "big.png")
    (images / "broken.png").write_bytes(b"no image")
    config = yaml.safe_load((log.parent / "config.yaml").read_text())
    config["data"]["init_args"]["dataset_args"] = {"root": str(images)}
    (log.parent / "config.yaml").write_text(yaml.safe_dump(config))
    write(log.parent, ["id", "true", "predicted", "probability"], ROWS)
    return log.parent


def write(run, header, rows):
    with (run / "val_predictions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def shown(run):
    """Captions and pictures of the examples on the page."""
    html = build_report([run]).render()
    found = re.findall(r'<figure class="picture small"><img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', html)
    return [(alt, Image.open(io.BytesIO(base64.b64decode(content)))) for alt, content in found], html


def test_the_surest_mistakes_come_first_where_their_files_are_left(run):
    found, html = shown(run)
    assert [alt for alt, _ in found] == ["cat 2, taken for cat (90 %)", "cat, taken for cat 2 (60 %)"]
    assert [image.size for _, image in found] == [(112, 56)] * 2
    assert [image.getpixel((50, 25)) for _, image in found] == [BLUE, RED]
    assert "2 of the images that were taken for another class" in html


def test_a_table_of_images_lies_beside_them(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    table = run.parent / "images" / "table.csv"
    table.write_text("path,label\n")
    config["data"]["init_args"]["dataset_args"] = {"path": str(table)}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert len(shown(run)[0]) == 2


@pytest.mark.parametrize("arguments", [None, {}, {"root": 3}, {"root": "nowhere"}, ["a"]])
def test_without_files_there_are_no_examples(run, arguments):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["init_args"]["dataset_args"] = arguments
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert shown(run)[0] == []


def test_tables_of_other_tasks_have_none(run):
    write(run, ["id", "mean"], [("a.png", "1")])
    assert shown(run)[0] == []
    write(run, ["id", "true", "predicted"], [("a.png", "cat", "cat 2")])
    assert [alt for alt, _ in shown(run)[0]] == ["cat, taken for cat 2"]


@pytest.mark.parametrize("row", [("a.png", "cat"), ("a.png", "cat", "cat 2", "x")])
def test_a_damaged_table_is_named(run, row):
    write(run, ["id", "true", "predicted", "probability"], [row])
    with pytest.raises(ConfigError, match=r"val_predictions\.csv is damaged"):
        build_report([run])
