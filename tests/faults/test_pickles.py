"""Nothing that a stranger made is unpickled, wherever a file is read."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from vimlight.data.target_files import FieldFiles
from vimlight.errors import CheckpointError, DataError, VimlightError
from vimlight.files.arrays import ARRAY_FAULTS, load_array
from vimlight.files.checkpoint_files import load_checkpoint_file
from vimlight.files.tensor_file import opened
from vimlight.files.weight_file import read_plain, read_weights
from vimlight.interop.modelscope.reading import read as read_release
from vimlight.transmiter import load_adapter
from vimlight.transmiter.cache.tables import read_array, read_labels, read_names
from vimlight.zoo.files import read_head, read_module

PACKAGE = Path(__file__).parents[2] / "vimlight"
RAN = []


def note():
    RAN.append("ran")


class Harmless:
    """Says that it was unpickled, and does nothing else."""

    def __reduce__(self):
        return note, ()


def zipped(path):
    torch.save({"state_dict": {"weight": torch.ones(2)}, "more": Harmless()}, path)


def legacy(path):
    torch.save({"weight": Harmless()}, path, _use_new_zipfile_serialization=False)


def plain(path):
    path.write_bytes(pickle.dumps({"weight": Harmless()}))


def array(path):
    with path.open("wb") as file:
        np.save(file, np.array([Harmless()], dtype=object), allow_pickle=True)


def arrays(path):
    with path.open("wb") as file:
        np.savez(file, rows=np.array([Harmless()], dtype=object))


def opens(path):
    with opened(path, "a test", CheckpointError):
        pass


def _said(read, path):
    """Stands for the callers, which say what numpy raises in words of their own."""
    try:
        return read(path)
    except ARRAY_FAULTS as error:
        raise DataError(str(error)) from error


DISGUISES = (zipped, legacy, plain, array, arrays)
READERS = {
    "module": (read_module, ".safetensors"),
    "head": (read_head, ".safetensors"),
    "adapter": (load_adapter, ".safetensors"),
    "tensor file": (opens, ".safetensors"),
    "checkpoint": (load_checkpoint_file, ".ckpt"),
    "weights": (read_weights, ".pth"),
    "weights under a false name": (read_weights, ".safetensors"),
    "tuned model": (read_plain, ".pt"),
    "release": (read_release, ".pt"),
    "array .pt": (read_array, ".pt"),
    "array .npy": (read_array, ".npy"),
    "array .npz": (read_array, ".npz"),
    "array .safetensors": (read_array, ".safetensors"),
    "labels": (read_labels, ".npy"),
    "names": (read_names, ".npy"),
    "array": (lambda path: _said(load_array, path), ".npy"),
    "map .npy": (lambda path: FieldFiles([path])[0], ".npy"),
    "map .npz": (lambda path: FieldFiles([path], key="rows")[0], ".npz"),
}
# Where the package reads what could hold a pickle.
PLACES = {
    "files/arrays.py": 2,
    "files/checkpoint_files.py": 1,
    "files/weight_file.py": 1,
    "interop/modelscope/reading.py": 1,
    "transmiter/cache/tables.py": 1,
    "transmiter/cache/writer.py": 1,
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_the_flag_is_set_by_what_is_unpickled(tmp_path, disguise):
    """Otherwise nothing below would show anything."""
    disguise(tmp_path / "a")
    loads = torch.load if disguise in (zipped, legacy) else np.load
    options = {"weights_only": False} if loads is torch.load else {"allow_pickle": True}
    with (tmp_path / "a").open("rb") as file:
        found = loads(file, **options)
        if disguise is arrays:
            found["rows"]
    assert RAN.pop() == "ran"
    RAN.clear()


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("name", list(READERS))
def test_no_reader_runs_a_pickle(tmp_path, name, disguise, record_property):
    read, suffix = READERS[name]
    path = tmp_path / f"a{suffix}"
    disguise(path)
    try:
        with pytest.raises(VimlightError):
            read(path)
    finally:
        ran = RAN.copy()
        RAN.clear()
    assert not ran
    record_property("pickles refused", 1)


def test_every_place_that_could_unpickle_is_known_and_forbids_it():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            called = ast.unparse(call.func)
            assert called not in ("pickle.load", "pickle.loads", "torch.jit.load", "eval", "exec"), path
            options = {word.arg: ast.unparse(word.value) for word in call.keywords}
            if called == "torch.load":
                assert options.get("weights_only") == "True", path
            elif called == "np.load":
                assert options.get("allow_pickle") == "False", path
            else:
                continue
            name = path.relative_to(PACKAGE).as_posix()
            found[name] = found.get(name, 0) + 1
    assert found == PLACES, "a new reader needs an entry in READERS"
