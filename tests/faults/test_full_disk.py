"""A disk that fills up while something is written: one or two lines, what stood before, and nothing left over."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from scene import Scene
from writers import WRITERS

# Removing takes no room, and makes some.
MAKING_ROOM = ("module_removed", "prefix_cache_that_makes_room")
FULL = ("No space left on device", "its disk is full", "there is no room on the disk")


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_files_that_may_grow_a_little(tmp_path, name, record_property):
    scene = Scene(name, tmp_path)
    said = [scene.bears(largest=point, kill=False) for point in scene.points]
    record_property("disks full", sum(map(bool, said)))


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_of_2_mb(disk, tmp_path, name, record_property):
    scene, full = Scene(name, tmp_path, work=disk / "work"), 0
    for left in (0, 4, 64, 68, 80, 128, 256):
        scene.put_back()
        (disk / "filler").unlink(missing_ok=True)
        fill(disk / "filler", left << 10)
        said = scene.bears(fresh=False)
        assert not said or any(words in said for words in FULL)
        full += bool(said)
        (disk / "filler").unlink()
    assert full or name in MAKING_ROOM
    record_property("disks full", full)


def fill(path, left):
    """Writes a file that leaves so many bytes of a disk."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(path.parent).free - left))
