"""Every kind of task is compared from YAML alone, each judged by its own metric."""

from __future__ import annotations

import json

import pytest
from tiny_kinds import SETTINGS, SIZE, scene_for
from tiny_plans import BACKBONE, write

from vimlight import cli
from vimlight.tasks import TASKS, list_tasks


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("kind", list_tasks())
def test_a_plan_of_every_kind(tmp_path, kind):
    if kind == "detection":
        pytest.importorskip("pycocotools")

    def task(name, stage, **more):
        scene = {"task": scene_for(kind, stage), "train": 80, "test": 8, "size": SIZE}
        common = {"dataset": "scenes", "dataset_args": scene, "task": SETTINGS[kind], "batch_size": 8}
        return {"name": name, **common, **more}

    plan = write(
        tmp_path,
        backbone={**BACKBONE, "img_size": SIZE},
        midstream=[task("module", "midstream")],
        downstream=[task("task", "downstream", epochs=1)],
        methods=["none", "ens_moe", "hindsight"],
        seeds=0,
    )
    out = tmp_path / "out"
    cli.main(["compare", plan, "--out", str(out)])
    records = json.loads((out / "results.json").read_text())["records"]
    assert [record["method"] for record in records] == ["none", "ens_moe", "hindsight"]
    for record in records:
        assert (record["kind"], record["metric"], record["mode"]) == (kind, TASKS[kind].monitor, TASKS[kind].mode)
        assert record["metric"] in record["scores"]
    better = max if TASKS[kind].mode == "max" else min
    values = {record["method"]: record["value"] for record in records}
    assert better(values["hindsight"], values["none"]) == values["hindsight"]
