"""Rankings of growing zoos, and beside the gains of single modules: that it runs, and what is counted."""

from __future__ import annotations

import json

import pytest

from benchmarks import ranking, ranking_curve
from vimlight.errors import ConfigError
from vimlight.zoo import Zoo


@pytest.mark.slow
def test_the_curve_and_the_quality_are_printed_and_written(tmp_path, capsys, monkeypatch):
    small = ["--modules", "16", "--images", "50", "--tasks", "digits", "--steps", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(ranking_curve, "SIZES", (1, 10, 15, 16))
    ranking.main([*small, "--curve", "--judged", "15"])
    rows = json.loads((tmp_path / "curve.json").read_text())["rows"]
    assert [row["modules"] for row in rows] == [1, 10, 15, 16]
    # Of few modules all see all images, with the bare backbone; the last zoo has not been judged.
    assert [row["passes"] for row in rows[:2]] == [2, 11]
    assert all(row["passes"] <= 12 for row in rows[2:])
    assert [row.get("found") for row in rows[:2]] == [1, 5]
    assert 0 <= rows[2]["behind"] <= 1
    assert "found" not in rows[3]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "found of the best five" in capsys.readouterr().out
    errors = json.loads((tmp_path / "exact-digits-0.json").read_text())
    assert len(errors) == 15
    exact = ranking.fit(ranking.small_backbone(), Zoo(tmp_path / "zoo"), "digits", 0, "exact", 50).ranking
    assert errors == pytest.approx({name: exact.modules[name] for name in errors}, rel=1e-4)
    with pytest.raises(ConfigError, match=r"curve\.json exists"):
        ranking.main([*small, "--curve"])
    # What was judged is not judged again.
    (tmp_path / "exact-digits-0.json").write_text(json.dumps(dict.fromkeys(errors, 1.0)))
    monkeypatch.setattr(ranking_curve, "SIZES", (1,))
    monkeypatch.setattr(ranking_curve, "_examples", lambda *_: pytest.fail("judged again"))
    ranking.main([*small, "--curve", "--judged", "15", "--overwrite"])


@pytest.mark.slow
def test_the_quality_of_a_ranking(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ranking_curve, "QUALITY_TEST", 20)
    asked = ["--modules", "3", "--steps", "1", "--tasks", "digits", "--seeds", "2", "--quality", "--out", str(tmp_path)]
    ranking.main(asked)
    rows = json.loads((tmp_path / "quality.json").read_text())
    assert [row["seed"] for row in rows] == [0, 1]
    out = capsys.readouterr().out
    assert "rank correlation with the gain in test accuracy: 3 modules, 5 shots" in out
    assert all(row["least gain"] <= row["greatest gain"] for row in rows)
