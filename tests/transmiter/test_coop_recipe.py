"""The recipe over CoOp's data sets: what it runs, and that it runs on made-up images in exactly their layout."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from tiny_layouts import write_coop
from tiny_models import write_open_clip

from vimlight.cli import main
from vimlight.data.coop_files import DATASETS
from vimlight.transmiter.models.templates import TEMPLATE_SETS

RECIPE = Path(__file__).parents[2] / "configs" / "transmiter" / "coop_transfer.sh"
# Notes its words, one a line, instead of running them.
STUB = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" >> calls; printf "\\0" >> calls\n'
FAST = {
    "cache": ["--data.num_workers=0", "--device=cpu", "--progress=false"],
    "fit": ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"],
}


def calls(folder, **settings):
    """Returns the commands that the recipe runs in a folder, each as its words."""
    (folder / "bin").mkdir()
    (folder / "bin" / "vimlight").write_text(STUB)
    (folder / "bin" / "vimlight").chmod(0o755)
    environment = {**os.environ, **settings, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(RECIPE)], cwd=folder, env=environment, check=True)
    return [call.strip("\n").split("\n") for call in (folder / "calls").read_text().split("\0") if call]


def value(call, option):
    return call[call.index(option) + 1]


def test_every_data_set_has_its_prompt_and_the_first_half_of_its_classes(tmp_path):
    made = calls(tmp_path)
    builds = [call for call in made if call[:2] == ["cache", "build"]]
    assert len(builds) == 2 * len(DATASETS)
    assert {value(call, "--model.name") for call in builds} == {"ViT-B-16", "ViT-L-14"}
    seen = set()
    for call in builds:
        data = yaml.safe_load(value(call, "--data.dataset_args"))["dataset"]
        assert value(call, "--templates") == f"coop/{data}"
        assert value(call, "--templates") in TEMPLATE_SETS
        ranges = yaml.safe_load(value(call, "--partitions"))
        (first, last), (start, end) = (map(int, ranges[name].split("-")) for name in ("base", "novel"))
        assert (first, start) == (0, last + 1)
        assert (last + 1) - (end - last) in (0, 1), "an odd class is a base class"
        seen.add(data)
    assert seen == set(DATASETS)
    assert value(made[-1], "--datasets").split(",") == sorted(DATASETS)


@pytest.mark.slow
def test_the_recipe_on_made_up_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_coop(tmp_path / "coop", "eurosat", classes=10, train=2, val=2, test=1)
    models = {
        "WEAK": write_open_clip(tmp_path / "weak", layers=(1, 1)),
        "STRONG": write_open_clip(tmp_path / "strong", sigmoid=True, seed=1),
    }
    small = {"WEAK_WEIGHTS": "null", "STRONG_WEIGHTS": "null", "SHOTS": "2", "LOGITS": "20", "VIEWS": "2"}
    for call in calls(tmp_path, **models, **small, ROOT="coop", DATASETS="eurosat"):
        main([*call, *FAST.get(call[0], [])])
    (found,) = json.loads(Path("caches/results.json").read_text())["runs"]
    assert found["dataset"] == "eurosat"
    assert {"target_zero_shot", "source_tuned", "transmiter", "eft", "safe"} <= set(found["methods"])
    assert len(found["groups"]["base"]["classes"]) == 5
    with Path("caches/predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 10
