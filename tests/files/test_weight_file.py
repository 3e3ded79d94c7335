"""TorchScript archives are read like `torch.jit.load` reads them, and nothing in them runs."""

from __future__ import annotations

import io
import pickle
import zipfile

import pytest
import tiny_clip
import torch
from torch import nn

from vimlight.errors import BackboneError, CheckpointError
from vimlight.files.torchscript import is_archive, read_archive
from vimlight.files.weight_file import read_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")


class Odd(nn.Module):
    """Tensors of many types, shared, strided, empty, and attributes of other kinds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4).T)
        self.tied = self.weight
        self.norm = nn.BatchNorm1d(4)
        self.more = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4).double()])
        for name in ("half", "bfloat16", "int", "short", "char", "byte", "bool"):
            self.register_buffer(name + "_", getattr(torch.ones(2), name)())
        self.register_buffer("part", torch.arange(6.0)[2:4])
        self.register_buffer("none", torch.zeros(0, 3))
        self.loose = torch.zeros(2)
        self.names = {"a": 1}
        self.pairs = [0.5]

    def forward(self, x):
        return self.norm(x) + self.loose.sum() + self.pairs[0] + self.names["a"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    torch.jit.script(Odd()).save(str(folder / "odd.pt"))
    for vision in ("vit", "rn"):
        tiny_clip.write(tiny_clip.make(vision), folder / f"{vision}.pt", "archive")
    return folder


@pytest.mark.parametrize("name", ["odd", "vit", "rn"])
def test_an_archive_is_read_as_by_torch_jit_load(archives, name):
    expected = torch.jit.load(str(archives / f"{name}.pt")).state_dict()
    found, _ = read_archive(archives / f"{name}.pt")
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        assert tensor.dtype == expected[key].dtype
        assert torch.equal(tensor, expected[key])


@pytest.mark.parametrize(("name", "openai"), [("odd", False), ("vit", True), ("rn", True)])
def test_an_archive_says_whose_it_is(archives, name, openai):
    file = read_weights(archives / f"{name}.pt")
    assert file.openai == openai
    assert not file.tensors.keys() & tiny_clip.EXTRA.keys()


@pytest.mark.parametrize(("quick", "openai"), [(True, True), (False, False)])
def test_the_code_of_an_archive_tells_its_activation(tmp_path, quick, openai):
    path = tiny_clip.write(tiny_clip.make(quick=quick), tmp_path / "model.pt", "bare_archive")
    file = read_weights(tmp_path / "model.pt")
    assert (file.openai, file.gelu) == (openai, not openai), path


def test_files_of_torch_save_are_no_archives(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"nonsense")
    assert not is_archive(tmp_path / "a.pt")
    assert not is_archive(tmp_path / "b.pt")


def rewritten(source, target, change, entry="/data.pkl"):
    """Copies an archive with its pickle, or another entry, changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(entry) else content)


class Evil:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("error", [BackboneError, CheckpointError])
def test_a_pickle_in_an_archive_that_would_run_code_is_refused_and_does_not_run(archives, tmp_path, error):
    stream = io.BytesIO()
    pickle.Pickler(stream, 2).dump(Evil(tmp_path / "was here"))
    rewritten(archives / "odd.pt", tmp_path / "evil.pt", lambda _: stream.getvalue())
    with pytest.raises(error, match=r"evil\.pt holds more than plain tensors and is not read, since a pickle can run"):
        read_weights(tmp_path / "evil.pt", error=error)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize(
    "change",
    [lambda x: x[: len(x) // 2], lambda x: pickle.dumps(3), lambda x: x.replace(b"weight", b"weighs"), lambda x: b""],
)
def test_a_damaged_archive_is_refused(archives, tmp_path, change):
    rewritten(archives / "odd.pt", tmp_path / "damaged.pt", change)
    with pytest.raises(CheckpointError, match=r"damaged\.pt is damaged or no weight file") as caught:
        read_weights(tmp_path / "damaged.pt")
    assert len(str(caught.value).splitlines()) == 1


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(archives, tmp_path):
    rewritten(archives / "odd.pt", tmp_path / "long.pt", lambda x: x[: len(x) // 2], entry="/data/0")
    with pytest.raises(CheckpointError, match=r"long\.pt is damaged"):
        read_weights(tmp_path / "long.pt")
