"""Directories that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from vimlight.files import atomic
from vimlight.files.atomic import publish_directory, temporary_directory, write_whole
from vimlight.files.leftovers import hidden, recover, set_aside, sweep
from vimlight.report.run_directories import claim


def content(directory):
    return {path.relative_to(directory).as_posix(): path.read_text() for path in directory.rglob("*") if path.is_file()}


def publish(final, text, overwrite=False):
    with temporary_directory(final) as copy:
        (copy / "inner").mkdir()
        (copy / "inner" / "file").write_text(text)
        assert copy.parent == final.parent
        publish_directory(copy, final, overwrite)


def test_a_directory_gets_its_name_at_the_end(tmp_path):
    publish(tmp_path / "new" / "place", "text")
    assert content(tmp_path) == {"new/place/inner/file": "text"}


def test_a_directory_is_replaced_only_if_asked(tmp_path):
    publish(tmp_path / "place", "old")
    with pytest.raises(FileExistsError):
        publish(tmp_path / "place", "new")
    assert content(tmp_path) == {"place/inner/file": "old"}
    publish(tmp_path / "place", "new", overwrite=True)
    assert content(tmp_path) == {"place/inner/file": "new"}


def interrupted(final):
    with temporary_directory(final) as copy:
        (copy / "file").write_text("half")
        raise KeyboardInterrupt


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "place")
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_one_succeeds(tmp_path):
    final = tmp_path / "place"
    with temporary_directory(final) as one, temporary_directory(final) as other:
        for copy in (one, other):
            (copy / "file").write_text(copy.name)
        publish_directory(one, final, overwrite=False)
        with pytest.raises(FileExistsError):
            publish_directory(other, final, overwrite=False)
    assert content(tmp_path) == {"place/file": one.name}


@pytest.fixture
def killed(monkeypatch):
    """Returns a function that calls another as a process that is gone by now."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()

    def call(function, *arguments):
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: process.pid)
            return function(*arguments)

    return call


def test_what_a_killed_process_was_writing_is_swept(tmp_path, killed):
    file, directory = killed(hidden, tmp_path / "a.ckpt"), killed(hidden, tmp_path / "cache")
    own, foreign = hidden(tmp_path / "b.ckpt"), tmp_path / ".b.elsewhere-1-00000000000000000000000000000000.tmp"
    for path in (file, own, foreign, tmp_path / ".hidden", tmp_path / ".x.tmp"):
        path.write_text("half")
    (directory / "inner").mkdir(parents=True)
    write_whole(tmp_path / "c.txt", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {own.name, foreign.name, ".hidden", ".x.tmp", "c.txt"}
    os.utime(foreign, (0, 0))
    sweep(tmp_path)
    assert not foreign.exists(), "nobody writes for more than a week"


def test_a_new_run_sweeps_what_killed_runs_were_writing(tmp_path, killed):
    places = [tmp_path / "version_0", tmp_path / "version_0" / "checkpoints"]
    left = [killed(hidden, place / "last.ckpt") for place in places]
    own = hidden(places[1] / "best.ckpt")
    places[1].mkdir(parents=True)
    for path in (*left, own):
        path.write_text("half")
    assert claim(tmp_path) == 1
    assert [path.exists() for path in (*left, own)] == [False, False, True]


def test_a_directory_that_was_being_replaced_gets_its_name_back(tmp_path, killed):
    publish(tmp_path / "place", "old")
    kept = killed(set_aside, tmp_path / "place")
    assert kept.exists()
    recover(tmp_path / "place")
    assert content(tmp_path) == {"place/inner/file": "old"}
    killed(set_aside, tmp_path / "place")
    sweep(tmp_path)
    assert content(tmp_path) == {"place/inner/file": "old"}
    other = set_aside(tmp_path / "place")
    recover(tmp_path / "place")
    assert other.exists(), "whoever replaces it is at work"
    publish(tmp_path / "place", "new")
    recover(tmp_path / "place")
    assert (tmp_path / "place" / "inner" / "file").read_text() == "new"


def test_without_links_of_many_writers_one_wins_and_no_name_is_ever_empty(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    final, barrier, won, seen = tmp_path / "a", threading.Barrier(6), [], []
    replace = type(final).replace

    def watched(self, target):
        seen.append(final.exists())
        return replace(self, target)

    monkeypatch.setattr(type(final), "replace", watched)

    def write(number):
        with atomic.temporary(final, str(number).encode(), sync=False) as copy:
            barrier.wait()
            try:
                atomic.publish(copy, final, overwrite=False)
            except FileExistsError:
                return
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [final.read_text()] == [str(number) for number in won]
    assert seen == [False]
