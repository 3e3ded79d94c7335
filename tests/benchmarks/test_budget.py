"""Minutes are shared out, and what takes longer than its share is ended."""

from __future__ import annotations

import json
import math
import signal
import time

import pytest

from benchmarks.__main__ import main
from benchmarks.budget import Budget


def test_what_takes_too_long_is_ended_and_what_is_left_over_goes_to_the_next():
    budget = Budget(0.6, 3)
    assert budget.share == pytest.approx(0.2, abs=0.05)
    with budget.limit() as short:
        pass
    assert budget.share == pytest.approx(0.3, abs=0.05)
    before = signal.getsignal(signal.SIGALRM)
    with budget.limit() as long:
        try:
            time.sleep(20)
        except Exception:  # nobody takes it for an error
            pytest.fail("caught")
    assert (short.cut, long.cut) == (False, True)
    assert signal.getsignal(signal.SIGALRM) is before


def test_without_minutes_nothing_is_limited():
    with Budget(math.inf, 1).limit() as limit:
        time.sleep(0.01)
    assert not limit.cut


def test_a_suite_that_is_out_of_time_leaves_its_results(tmp_path, capsys):
    main(["merged", "--device", "cpu", "--minutes", "0.00001", "--threads", "1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["quick"]
    assert found["benchmarks"]["merged"]["cut"]
    assert "out of time: 0 results" in capsys.readouterr().out
