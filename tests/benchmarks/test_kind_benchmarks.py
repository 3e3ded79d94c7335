"""The comparisons over all kinds of task, at toy sizes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks import gain, tasks
from vimlight.comparison.kinds import KindPlan, KindTask, Score
from vimlight.errors import ConfigError
from vimlight.tasks import TASKS, list_tasks

BACKBONE = {
    "name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2,
}  # fmt: skip


def tiny(downstream):
    midstream = (KindTask("shapes", "shapes", {"kind": "classification"}, epochs=1, batch_size=8),)
    return KindPlan(
        midstream, downstream, BACKBONE, {"kind": "convpass", "hidden": 2}, images=24, pool=80, test_images=8,
        seeds=(0, 1), size=32, accelerator="cpu", precision="32-true",
    )  # fmt: skip


def test_every_kind_is_compared():
    plan = tasks.plan()
    assert {task.task["kind"] for task in plan.downstream} >= set(list_tasks())
    assert len(gain.plan().midstream) >= 6
    assert len({task.task["kind"] for task in gain.plan().downstream}) >= 6
    for task in (*plan.midstream, *gain.plan().downstream):
        assert task.task["kind"] in TASKS


def test_gains_are_positive_where_a_module_helps():
    scores = [
        Score("depth", name, seed, "abs_rel", "min", value)
        for seed in (0, 1)
        for name, value in (("none", 0.5), ("good", 0.3), ("bad", 0.6))
    ]
    assert gain.gains_of(scores, "depth", "good") == pytest.approx([0.2, 0.2])
    assert gain.gains_of(scores, "depth", "bad") == pytest.approx([-0.1, -0.1])


@pytest.mark.slow
def test_both_print_and_write(tmp_path, capsys, monkeypatch):
    # Starting processes takes longer than the jobs; other tests see that they run side by side.
    monkeypatch.setattr("vimlight.comparison.kinds.in_parallel", lambda stage, jobs: [job() for _, job in jobs])
    plan = tiny((
        KindTask("regression", "odd_geometry", {"kind": "regression"}, shots=10, epochs=2),
        KindTask("depth", "odd_depth", {"kind": "depth", "head": "linear"}, shots=4, epochs=2),
    ))  # fmt: skip
    out = ["--out", str(tmp_path)]
    tasks.main(out, plan)
    scores = json.loads((tmp_path / "tasks.json").read_text())
    assert len(scores) == 2 * 2 * 2
    assert {score["metric"] for score in scores} == {"r2", "abs_rel"}
    assert "abs_rel ↓" in capsys.readouterr().out
    gain.main([*out, "--zoo", str(tmp_path / "zoo")], dataclasses.replace(plan, seeds=(0,)))
    assert (tmp_path / "gain.png").read_bytes().startswith(b"\x89PNG")
    assert {score["modules"] for score in json.loads((tmp_path / "gain.json").read_text())} == {"none", "shapes"}
    with pytest.raises(ConfigError, match="exists"):
        tasks.main(out, plan)
