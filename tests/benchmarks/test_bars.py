"""One table of all bars: what is asked, what was measured, whether it is met."""

from __future__ import annotations

import json

import pytest

from benchmarks.bars import AREAS, lines, main
from benchmarks.results import Bar, Comparison, Figure, Row
from vimlight.errors import ConfigError


def speed(device="cpu", cut=False):
    row = Row("fast", 1.0, (1.0, 1.0), 1.5, (1.5, 1.5), None, 0, None, 0.0, 0.0, Bar(at_most=1.2))
    steps = Comparison("steps", "plain", 3, (row,))
    results = [steps, Figure("wait", 0.02, "", Bar(at_most=0.03)), Figure("free", 1.0)]
    entry = {"results": [result.as_dict() for result in results], "cut": cut}
    return {"device": device, "benchmarks": {"throughput": entry}}


RANKED = {"images": 500, "passes": 22.0, "found": 4, "behind": 0.2, "accuracy": 80.0, "accuracy exact": 80.5}
RESULTS = {
    "speed.json": (speed(), [("throughput", 1.5, False), ("throughput", 0.02, True)]),
    "ranking.json": (
        {"modules": 100, "images": 1000, "rows": [RANKED, {**RANKED, "found": 3}]},
        [("ranking", 11.0, True), ("ranking", 1, False), ("ranking", 0.5, False)],
    ),
    "curve.json": (
        {
            "images": 100,
            "rows": [
                {"modules": 30, "images": 100, "passes": 9.0},
                {"modules": 100, "images": 100, "passes": 13.0, "found": 5, "behind": 0.0},
                # Not every module of the largest zoo was judged on all images.
                {"modules": 1000, "images": 50, "passes": 21.0},
            ],
        },
        [("ranking", 13.0, False), ("ranking", 1, True), ("ranking", 10.5, True)],
    ),
    "before.json": ({"bar": 1.03, "ratios": {"module": 0.9}}, [("before", 0.9, True)]),
    "waiting.json": ({"commands": [{"command": "zoo list", "ratio": 0.05, "bar": 0.1}]}, [("waiting", 0.05, True)]),
    "builds.json": (
        {
            what: {
                "bar": bar,
                "rounds": [{"before": {"clock": 10.0, "processor": 8.0}, "now": {"clock": 5.0, "processor": 8.0}}] * 2,
            }
            for what, bar in (("demo", 0.6), ("tests", 0.7))
        },
        [("demo", 0.5, True), ("tests", 0.5, True), ("tests", 1.0, False)],
    ),
    "demo.json": ({"seconds": {"short": 1.0, "full": 10.0}}, [("demo", 0.1, True)]),
}


@pytest.mark.parametrize("name", RESULTS)
def test_bars_of_every_file(tmp_path, name):
    content, expected = RESULTS[name]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / name).write_text(json.dumps(content))
    found = [(line.area, pytest.approx(line.measured), line.met) for line in lines(tmp_path)]
    assert found == expected


@pytest.mark.parametrize(("cut", "met"), [(False, True), (True, False)])
def test_a_gpu_is_an_area_of_its_own(tmp_path, cut, met):
    (tmp_path / "speed.json").write_text(json.dumps(speed("NVIDIA X", cut)))
    assert [(line.area, line.met) for line in lines(tmp_path)][-1] == ("gpu", met)


def test_what_nobody_measured_is_said(tmp_path, capsys):
    (tmp_path / "waiting.json").write_text(json.dumps(RESULTS["waiting.json"][0]))
    main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("not measured") == len(AREAS) - 1
    assert "1 of 1 bars met" in printed


@pytest.mark.parametrize(("content", "text"), [(None, "holds no speed.json"), ("[]", "is no result of a benchmark")])
def test_what_is_no_result_is_refused(tmp_path, content, text):
    if content is not None:
        (tmp_path / "speed.json").write_text(content)
    with pytest.raises(ConfigError, match=text):
        lines(tmp_path)
