"""A directory that several processes replace at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from vimlight.files.atomic import publish_directory


def directory(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_of_two_that_replace_a_directory_the_last_one_stays(tmp_path, monkeypatch):
    final = directory(tmp_path / "final", "old")
    mine, other = directory(tmp_path / "mine", "mine"), directory(tmp_path / "other", "other")
    rename = Path.rename

    def before_mine(self, target):
        if self == mine and other.exists():
            rename(other, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", before_mine)
    publish_directory(mine, final, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert (final / "file").read_text() == "mine"


def test_what_was_there_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    final, copy = directory(tmp_path / "final", "old"), directory(tmp_path / "copy", "new")
    rename = Path.rename

    def refuse_copy(self, target):
        if self == copy:
            raise PermissionError(13, "not permitted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_copy)
    with pytest.raises(PermissionError):
        publish_directory(copy, final, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "final"]
    assert (final / "file").read_text() == "old"


def test_what_appears_meanwhile_is_not_replaced_by_who_must_not(tmp_path, monkeypatch):
    final, copy = tmp_path / "final", directory(tmp_path / "copy", "new")
    rename = Path.rename

    def after_another(self, target):
        directory(final, "other")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", after_another)
    with pytest.raises(FileExistsError):
        publish_directory(copy, final, overwrite=False)
    assert (final / "file").read_text() == "other"
