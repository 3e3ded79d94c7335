"""A writer in a directory that can be put back to what stood before, and what faults must not do to it."""

from __future__ import annotations

import shutil

import torch
from children import in_child
from writers import NEXT, WRITERS


def same(one, other):
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.name != NEXT)


class Scene:
    """A writer in a directory that can be put back to what stood before.

    Args:
        name: The writer.
        root: An empty directory.
        work: Where the writer is to work, if not there.
    """

    def __init__(self, name, root, work=None):
        self.root, self._before = work or root / "work", root / "before"
        self.root.mkdir()
        self.writer = WRITERS[name](self.root)
        self.stood = self.writer.read()
        shutil.copytree(self.root, self._before)
        whole = self.run()
        assert (whole.error, whole.killed) == ("", False)
        self.changes, self.came, self.names = whole.changes, self.writer.read(), names(self.root)
        sizes = {path.stat().st_size for path in self.root.rglob("*") if path.is_file()}
        # Sizes at which some file is half there.
        self.points = sorted({1, *(point for size in sizes for point in (size // 2, size - 1) if size > 1)})
        assert not same(self.stood, self.came), "it writes nothing that could be seen"

    def run(self, whole=False, **faults):
        return in_child(lambda: self.writer.write(whole), **faults)

    def put_back(self):
        shutil.rmtree(self.root)
        shutil.copytree(self._before, self.root)

    def check(self, faults):
        """Looks at what is there, which it returns: each thing is the old or the new one."""
        found = self.writer.read()
        for thing in {**self.stood, **self.came, **found}:
            one, two, now = (each.get(thing) for each in (self.stood, self.came, found))
            gone = now is None and thing in self.writer.may_go
            assert gone or same(now, one) or same(now, two), f"{thing} is neither the old nor the new one: {faults}"
        return found

    def survives(self, **faults):
        """Tells whether it was killed; what is there is looked at, and the work done again."""
        self.put_back()
        outcome = self.run(**faults)
        assert outcome.error == ""
        found = self.check(faults)
        again = self.run(whole=same(found, self.came))
        assert again.error == "", f"after {faults}"
        assert same(self.writer.read(), self.came), f"after {faults}"
        assert [name for name in names(self.root) if name not in self.names] == [], f"left over after {faults}"
        return outcome.killed

    def bears(self, fresh=True, **faults):
        """Returns what it said of a disk that takes no more; what is there is looked at, and nothing may be left."""
        if fresh:
            self.put_back()
        outcome = self.run(**faults)
        assert outcome.typed or not outcome.error, outcome.error
        assert len(outcome.error.splitlines()) <= 2
        self.check(faults)
        assert [name for name in names(self.root) if name.endswith(".tmp")] == [], f"left over after {faults}"
        return outcome.error
