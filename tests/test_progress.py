"""What a long piece of work says of itself where there is no terminal."""

from __future__ import annotations

import io
import re
import time

import pytest

from vimlight import progress
from vimlight.progress import Lines, Progress, track


class Clock:
    """A clock that a test turns."""

    now = 100.0

    def __call__(self):
        return self.now


def lines_of(file):
    return file.getvalue().splitlines()


@pytest.fixture
def clock():
    return Clock()


def test_every_job_has_a_line_that_says_what_remains(clock):
    file = io.StringIO()
    lines = Lines("midstream", 4, file, clock)
    for name, took in (("letters", 20), ("shapes", 40), ("position", 30), ("orientation", 10)):
        clock.now += took
        lines.advance(name)
    assert lines_of(file) == [
        "midstream: 1 of 4 done (letters), 20 s, about 1 min 0 s left",
        "midstream: 2 of 4 done (shapes), 1 min 0 s, about 1 min 0 s left",
        "midstream: 3 of 4 done (position), 1 min 30 s, about 30 s left",
        "midstream: 4 of 4 done (orientation), 1 min 40 s",
    ]


def test_what_is_done_of_steps_under_way_counts_in_what_remains(clock):
    file = io.StringIO()
    lines = Lines("downstream", 4, file, clock)
    clock.now += 30
    lines.within(0.5)
    lines.remind()
    clock.now += 30
    lines.within(0.5)
    lines.advance("digits")
    assert lines_of(file) == [
        "downstream: 0 of 4 done, 30 s, about 3 min 30 s left",
        "downstream: 1 of 4 done (digits), 1 min 0 s, about 1 min 40 s left",
    ]


def test_a_bar_is_one_line_of_eighty_columns(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "80")
    file = Terminal()
    with Progress("fit", 100_000, file) as shown:
        shown.advance()
        shown.note("epoch 12, train/loss 0.123, val/accuracy 0.456, val/loss 1.23, data_wait 0.01")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", plain).replace("\r", "\n").splitlines()
    drawn = [frame.rstrip() for frame in frames if frame.strip()]
    assert drawn
    assert all(len(frame) <= 80 and "1/100000" in frame for frame in drawn[1:]), drawn


def test_a_bar_moves_within_a_step():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Progress("downstream", 4, Terminal())
    with shown:
        shown.within(0.5)
        shown.advance("digits")
        shown.within(0.25)
        [task] = shown._view._bar.tasks
        assert task.completed == 1.25


def test_steps_without_a_name_are_silent_for_half_a_minute_and_no_longer(clock):
    file = io.StringIO()
    lines = Lines("images", None, file, clock)
    for _ in range(100):
        clock.now += 1
        lines.advance(None)
    assert lines_of(file) == ["images: 30 done, 30 s", "images: 60 done, 1 min 0 s", "images: 90 done, 1 min 30 s"]


def test_a_long_step_is_not_silent(clock):
    file = io.StringIO()
    lines = Lines("downstream", 2, file, clock)
    for seconds in (29, 1, 29, 1):
        clock.now += seconds
        lines.remind()
    assert lines_of(file) == ["downstream: 0 of 2 done, 30 s", "downstream: 0 of 2 done, 1 min 0 s"]


def test_the_silence_is_broken_while_a_step_runs(monkeypatch):
    monkeypatch.setattr(progress, "_SILENCE", 0.05)
    file = io.StringIO()
    with Progress("seeds", 2, file) as shown:
        shown.note("seed 0")
        deadline = time.monotonic() + 10
        while not file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert lines_of(file)[0] == "seeds: 0 of 2 done (seed 0), 0 s"
    said = file.getvalue()
    time.sleep(0.2)
    assert file.getvalue() == said, "the thread has ended"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7320, "2 h 2 min")]
)
def test_durations(clock, seconds, text):
    file = io.StringIO()
    lines = Lines("x", None, file, clock)
    clock.now += seconds
    lines.advance("a")
    assert lines_of(file) == [f"x: 1 done (a), {text}"]


@pytest.mark.parametrize("items", [[1, 2, 3], iter([1, 2, 3])])
def test_what_is_done_quickly_says_nothing_and_loses_nothing(items, capsys):
    assert list(track(items, "numbers")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_what_is_slow_says_so_on_the_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SILENCE", 0.0)
    list(track([1, 2], "numbers"))
    list(track([1, 2], "hidden", show=False))
    out, err = capsys.readouterr()
    assert out == ""
    assert "numbers: 1 of 2 done, 0 s, about 0 s left\n" in err
    assert "hidden" not in err


def test_a_terminal_has_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    file = Terminal()
    with Progress("midstream", 2, file) as shown:
        shown.advance("letters")
    assert "midstream: letters done" in file.getvalue()
    assert "1/2" in file.getvalue()


@pytest.mark.parametrize("total", [None, 20])
@pytest.mark.parametrize("note", ["epoch 3", "epoch 11, train/left_out_error 0.0495, data_wait 0.0118, " * 2])
def test_a_line_fits_eighty_columns(clock, total, note):
    file = io.StringIO()
    lines = Lines("fit", total, file, clock)
    lines.note(note)
    for _ in range(11):
        clock.now += 400
        lines.advance(None)
    assert all(len(line) <= 80 for line in lines_of(file))
    assert all(line.startswith("fit: ") and "(epoch " in line and " min" in line for line in lines_of(file))
