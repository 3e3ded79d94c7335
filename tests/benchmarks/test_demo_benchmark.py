"""The short demo beside the full one: the ratio of their times, and what each of them says."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks import demo
from vimlight.errors import ConfigError


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Pretends that both were run: the short one takes a tenth of the time and gains half as much."""

    def timed(size, options):
        folder, gain = tmp_path / size, 0.02 if size == "short" else 0.04
        folder.mkdir(parents=True, exist_ok=True)
        records = [
            {"method": name, "task": task, "seed": seed, "value": value + 0.1 * seed}
            for name in (demo.VIM, *demo.CONTROLS)
            for task, value in (("digits", 0.5), ("relations", 0.3 + 2 * gain * (name == demo.VIM)))
            for seed in (0, 1)
        ]
        (folder / "results.json").write_text(json.dumps({"records": records}))
        scores = {"target_zero_shot": 0.5, "transmiter": 0.5 + gain, "safe": 0.5 + 2 * gain}
        methods = {name: {"accuracies": {"harmonic": value}} for name, value in scores.items()}
        (folder / "transfer.json").write_text(json.dumps({"runs": [{"methods": methods}] * 2}))
        return 40.0 if size == "short" else 400.0

    monkeypatch.setattr(demo, "timed", timed)
    return tmp_path


def test_times_and_gains_stand_side_by_side(runs, capsys):
    demo.main(["--out", str(runs)])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seconds", "400", "40", "0.100"] in printed
    assert ["ViM", "minus", "uniform", "+4.000", "±", "0.000", "+2.000", "±", "0.000"] in printed
    assert ["safe", "minus", "target", "zero-shot", "+8.000", "±", "0.000", "+4.000", "±", "0.000"] in printed
    found = json.loads((runs / "demo.json").read_text())
    assert found["seconds"] == {"full": 400.0, "short": 40.0}
    with pytest.raises(ConfigError, match=r"demo\.json exists; choose another --out"):
        demo.main(["--out", str(runs)])


@pytest.mark.parametrize(("size", "full"), [("short", False), ("full", True)])
def test_one_of_them_is_the_demo_s_own(tmp_path, monkeypatch, size, full):
    seen = []
    monkeypatch.setattr(demo, "prepare_workers", lambda modules: None)
    monkeypatch.setattr(demo.demo, "both", lambda *plans, **options: seen.append(plans))
    demo.main(["--out", str(tmp_path), "--one", size, "--precision", "32-true"])
    (vim, moved, folder), whole = seen[0], (demo.demo.plan(full), demo.demo.transfer_plan(full))
    assert vim == dataclasses.replace(whole[0], precision="32-true")
    assert moved == dataclasses.replace(whole[1], precision="32-true")
    assert folder == tmp_path / size
