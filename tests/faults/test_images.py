"""Images, masks and maps that are cut off, are none, or unpack to any size: one error that names the file."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vimlight.data import target_files
from vimlight.data.boxes.values import image_size
from vimlight.data.sources import load_source
from vimlight.data.tables import FileTable
from vimlight.data.target_files import FieldFiles, MaskFiles
from vimlight.errors import CheckpointError, DataError
from vimlight.files import weight_file
from vimlight.files.weight_file import read_plain, read_weights


def table(path):
    return FileTable([path], torch.zeros(1), path.parent).image(0)


def shard(path):
    """The image within a tar file."""
    (path.parent / "train").mkdir()
    (path.parent / "classnames.txt").write_text("cat\n")
    (path.parent / "train" / "nshards.txt").write_text("1")
    with tarfile.open(path.parent / "train" / "0.tar", "w") as archive:
        for name, content in ((f"{path.stem}.png", path.read_bytes()), (f"{path.stem}.cls", b"0")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return load_source("webdataset", {"root": str(path.parent), "test": None}).train.image(0)


READERS = {
    "image": table,
    "orientation": lambda path: FileTable([path], torch.zeros(1), path.parent).orientation(0),
    "tar": shard,
    "mask": lambda path: MaskFiles([path], 3)[0],
    "map": lambda path: FieldFiles([path])[0],
    "size": lambda path: image_size((None, None), path),
}
HEADERS_ALONE = ("orientation", "size")


def png(width, height, packed):
    """A grey image of eight bits whose pixels are what is packed."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def picture(kind, mode="L"):
    content = io.BytesIO()
    Image.fromarray(np.arange(40 * 30).reshape(40, 30).astype(np.uint8) % 3).convert(mode).save(content, kind)
    return content.getvalue()


WHOLE = picture("png")
DAMAGED = {
    "empty": b"",
    "text": b"no image at all",
    "cut off": WHOLE[: len(WHOLE) * 2 // 3],
    "no pixels": png(8, 8, b""),
    "damaged pixels": png(8, 8, b"\0" * 30),
    "few pixels": png(8, 8, zlib.compress(b"\0\1\2")),
    "jpeg cut off": picture("jpeg")[:-90],
    "tiff cut off": picture("tiff")[:-40],
    "webp cut off": picture("webp")[:-40],
}
BOMB = png(40_000, 40_000, zlib.compress(b"\0" * 1000))


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", list(READERS))
def test_damaged_images(tmp_path, name, damage, record_property):
    path = tmp_path / "dog.png"
    path.write_bytes(DAMAGED[damage])
    if name in HEADERS_ALONE and damage not in ("empty", "text"):
        pytest.skip("its pixels are not read")
    with pytest.raises(DataError, match=r"^cannot read .*dog.*: .+") as caught:
        READERS[name](path)
    assert len(str(caught.value).splitlines()) == 1
    assert "<" not in str(caught.value)
    record_property("files damaged", 1)


@pytest.mark.parametrize("name", list(READERS))
def test_images_that_unpack_to_any_size(tmp_path, name):
    """They are refused by their header: nothing is decoded."""
    path = tmp_path / "dog.png"
    path.write_bytes(BOMB)
    with pytest.raises(DataError, match=r"cannot read .*dog.* exceeds limit of \d+ pixels"):
        READERS[name](path)


@pytest.mark.parametrize("error", [KeyError("x"), zlib.error("x"), OverflowError(), EOFError(), AssertionError("x")])
@pytest.mark.parametrize("name", list(READERS))
def test_whatever_a_parser_of_images_raises(tmp_path, monkeypatch, name, error):
    def fail(*_, **__):
        raise error

    path = tmp_path / "dog.png"
    path.write_bytes(WHOLE)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=r"cannot read .*dog"):
        READERS[name](path)


def saved(path, array, **_):
    np.save(path, array)


def zipped(path, array, key="depth"):
    np.savez(path, **{key: array})


def member(path, content, name="depth.npy"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


HEADER = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }".ljust(127) + b"\n"
MAPS = {
    "complex": (".npy", lambda path: saved(path, np.ones((2, 2), complex)), r"holds complex128, not real numbers"),
    "texts": (".npz", lambda path: zipped(path, np.array([["1", "2"]])), r"holds <U1, not real numbers"),
    "dates": (".npy", lambda path: saved(path, np.zeros((2, 2), "M8[s]")), r"holds datetime64\[s\], not real numbers"),
    "records": (".npz", lambda path: zipped(path, np.zeros((2, 2), "i4,f4")), r"not real numbers"),
    "one number": (".npy", lambda path: saved(path, np.float64(3)), r"holds an array \(\), expected \(H, W\)"),
    "other key": (".npz", lambda path: zipped(path, np.ones((2, 2)), "a"), r"has no array 'depth', only \['a'\]"),
    "false name": (".npz", lambda path: path.write_bytes(npy(np.ones((2, 2)))), "it is one array, not a zip file"),
    "zip as npy": (".npy", lambda path: member(path, b""), "it is a zip file, not one array"),
    "no array": (".npz", lambda path: member(path, b"text", "depth"), "cannot read|not real numbers"),
    "no header": (".npz", lambda path: member(path, b"\x93NUMPY\x01\x00\xff\xff{'descr"), "cannot read"),
    "forged shape": (".npy", lambda path: path.write_bytes(HEADER % b"90000, 90000"), "cannot read"),
    "forged member": (".npz", lambda path: member(path, HEADER % b"90000, 90000"), "cannot read"),
    "no Python": (".npy", lambda path: path.write_bytes(HEADER.replace(b"'<f8'", b"'<f8 ") % b"2, 2"), "cannot read"),
    "damaged zip": (".npz", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)), "cannot read"),
}


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("case", MAPS)
def test_maps_that_are_none(tmp_path, case):
    suffix, write, message = MAPS[case]
    path = tmp_path / f"wall{suffix}"
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        FieldFiles([path])[0]
    assert "wall" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("suffix", "write"), [(".npy", saved), (".npz", zipped)])
def test_maps_that_unpack_to_any_size(tmp_path, monkeypatch, suffix, write):
    path = tmp_path / f"wall{suffix}"
    write(path, np.ones((20, 30)))
    assert FieldFiles([path])[0].shape == (20, 30)
    monkeypatch.setattr(target_files, "_MOST", 4000)
    with pytest.raises(DataError, match=r"wall.*(unpacks to 4928 bytes, more than 4000|holds an array \(20, 30\))"):
        FieldFiles([path])[0]


@pytest.mark.parametrize("read", [read_plain, read_weights])
def test_weights_that_unpack_to_any_size(tmp_path, monkeypatch, read):
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.zeros(3000)}, path)
    read(path)
    with zipfile.ZipFile(path) as archive:
        members = {each.filename: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    monkeypatch.setattr(weight_file, "_LARGEST_PACKED", 10_000)
    with pytest.raises(CheckpointError, match=r"a.pth is damaged .*: '.*data/0' is compressed, which torch"):
        read(path)
