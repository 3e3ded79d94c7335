"""How far jobs are, told through files."""

from __future__ import annotations

import os
import time

import pytest

from vimlight.comparison.pulse import Pulse, parts_under_way, sweep_pulses


def test_jobs_that_were_killed_are_forgotten(tmp_path):
    sweep_pulses(tmp_path / "missing")
    for name, hours in (("killed", 2), ("at work", 0.5)):
        Pulse(tmp_path / name, steps=4).step()
        os.utime(tmp_path / name, (time.time() - 3600 * hours,) * 2)
    assert parts_under_way(tmp_path, ["killed", "at work", "not begun"]) == pytest.approx(0.5)
    sweep_pulses(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["at work"]
