"""Directories that appear whole or not at all."""

from __future__ import annotations

import pytest

from vimlight.files.atomic import publish_directory, temporary_directory


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
