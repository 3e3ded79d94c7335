"""Ranking by halving beside the exact ranking: what is counted, and that it runs."""

from __future__ import annotations

import json

import pytest

from benchmarks import ranking
from vimlight.aggregation.ranking import Ranking
from vimlight.data import DownstreamDataModule
from vimlight.errors import ConfigError


def test_what_halving_finds_is_told_by_the_exact_errors(capsys):
    exact = Ranking(100, 0.9, {f"m{n}": n / 20 for n in range(20)}, "ens_moe")
    late = {f"m{n}": 10 for n in (0, 1, *range(10, 20))}
    halved = Ranking(100, 0.9, dict(exact.modules), "ens_moe", judged_on=late, bare_on={10: 1.0, 100: 0.9})
    fits = {"exact": ranking.Fit(30.0, 8.0, 91.0, exact), "halving": ranking.Fit(12.0, 2.0, 90.5, halved)}
    found = ranking.compared(fits)
    assert found == {
        "images": 100, "passes exact": 30.0, "passes": 12.0, "time": 0.25, "found": 3, "behind": pytest.approx(2 / 19),
        "accuracy exact": 91.0, "accuracy": 90.5,
    }  # fmt: skip
    ranking.show([{"task": "digits", "seed": 0, **found}], 20)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["digits", "0", "30.0", "12.0", "0.250", "3", "10.5%", "91.00", "90.50"] in lines
    assert ["mean", "30.0", "12.0", "0.250", "3", "10.5%", "91.00", "90.50"] in lines


@pytest.mark.slow
def test_the_command_prints_and_writes(tmp_path, capsys, monkeypatch):
    few = DownstreamDataModule("digits", seed=0, batch_size=50, shots=8, test_limit=40)
    monkeypatch.setattr(ranking, "task_data", lambda task, seed, images: few)
    monkeypatch.setattr(ranking, "TRAINED", 3)
    small = ["--modules", "16", "--images", "50", "--tasks", "digits", "--steps", "1", "--out", str(tmp_path)]
    ranking.main(small)
    (row,) = json.loads((tmp_path / "ranking.json").read_text())["rows"]
    assert "16 modules" in capsys.readouterr().out
    assert row["passes exact"] == pytest.approx(16 + 9, abs=0.5)
    assert row["passes"] < row["passes exact"]
    with pytest.raises(ConfigError, match=r"ranking\.json exists; choose another --out"):
        ranking.main(small)
