import struct
import zipfile

import numpy as np
import pytest
import torch

from vimlight.errors import CacheError, CheckpointError
from vimlight.files.checked_members import CheckedMembers
from vimlight.files.checkpoint_files import load_checkpoint_file
from vimlight.files.checksums import BLOCK, BlockSums, CheckedFile
from vimlight.files.weight_file import read_plain, read_weights

READERS = [load_checkpoint_file, read_plain, lambda path: read_weights(path).tensors]
TENSORS = {"a": torch.arange(6.0), "b": torch.arange(6.0) + 6}


@pytest.fixture
def saved(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def members_of(path):
    """From the ends of names to where the members lie in the file."""
    with CheckedMembers(path, "it", CheckpointError) as file:
        return {member.filename.split("/", 1)[1]: (start, member) for start, member in file._unseen.items()}


def altered(path, place, piece):
    content = bytearray(path.read_bytes())
    content[place : place + len(piece)] = piece
    path.write_bytes(content)


@pytest.mark.parametrize("read", READERS, ids=["checkpoint", "plain", "weights"])
def test_a_tensor_of_a_file_that_was_altered_is_refused(saved, read):
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in read(saved).items())
    altered(saved, members_of(saved)["data/1"][0], b"\1")
    with pytest.raises(
        CheckpointError, match=r"was altered or damaged after it was written \('a/data/1': its checksum"
    ):
        read(saved)


@pytest.mark.parametrize("read", READERS, ids=["checkpoint", "plain", "weights"])
@pytest.mark.parametrize(("name", "other"), [("data/0", "data/1"), ("data/1", "data/0")])
def test_a_member_that_points_to_another_one_is_refused(saved, read, name, other):
    places = {each: found[1].header_offset for each, found in members_of(saved).items()}
    entry = saved.read_bytes().rindex(f"a/{name}".encode())
    # The offset is the last of the numbers in front of the name in a zip file's directory.
    altered(saved, entry - 4, struct.pack("<I", places[other]))
    with pytest.raises(CheckpointError, match=r"(was altered or|is) damaged"):
        read(saved)


@pytest.mark.parametrize("read", READERS, ids=["checkpoint", "plain", "weights"])
def test_a_file_whose_checksums_were_left_out_is_read(saved, read):
    computes = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(TENSORS, saved)
    finally:
        torch.serialization.set_crc32_options(computes)
    with zipfile.ZipFile(saved) as archive:
        assert not any(member.CRC for member in archive.infolist())
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in read(saved).items())


@pytest.mark.parametrize("count", [1, 10, 1 << 20])
def test_no_part_of_a_member_is_read_before_a_look(saved, count):
    """However torch may come to read them."""
    place, member = members_of(saved)["data/1"]
    altered(saved, place + member.file_size - 1, b"\1")
    with CheckedMembers(saved, "it", CheckpointError) as file:
        file.seek(place)
        assert file.read(count) == b""
        with pytest.raises(CheckpointError, match="it was altered or damaged"):
            file.check()


def blocks(tmp_path, monkeypatch):
    """A file of three blocks and a bit, and the numbers of those that were looked at."""
    content = np.random.default_rng(0).integers(0, 256, 3 * BLOCK + 100, dtype=np.uint8).tobytes()
    (tmp_path / "a.npy").write_bytes(content)
    sums, seen, compare = BlockSums(), [], CheckedFile.compare
    sums.update(content)
    monkeypatch.setattr(CheckedFile, "compare", lambda *given: (seen.append(given[1]), compare(*given))[1])
    return content, CheckedFile(tmp_path / "a.npy", sums.sums(), CacheError), seen


@pytest.mark.parametrize("step", [BLOCK // 3, BLOCK, 2 * BLOCK + 5, 4 * BLOCK])
def test_each_block_is_looked_at_once_however_it_is_read(tmp_path, monkeypatch, step):
    content, file, seen = blocks(tmp_path, monkeypatch)
    for _ in range(2):
        with file.opened() as reader:
            reader.seek(10)
            found = b"".join(iter(lambda: reader.read(step), b""))
        assert found == content[10:]
    assert sorted(seen) == [0, 1, 2, 3]
    assert file.is_checked


@pytest.mark.parametrize("step", [BLOCK // 3, BLOCK, 4 * BLOCK])
@pytest.mark.parametrize("place", [0, BLOCK + 7, 3 * BLOCK + 99])
def test_nothing_of_an_altered_block_is_read(tmp_path, monkeypatch, step, place):
    content, file, _ = blocks(tmp_path, monkeypatch)
    altered(tmp_path / "a.npy", place, bytes([content[place] ^ 1]))
    found, said = [], rf"block {place // BLOCK} of 4, its checksum differs"
    with file.opened() as reader, pytest.raises(CacheError, match=said):
        found.extend(iter(lambda: reader.read(step), b""))
    assert sum(map(len, found)) <= place // BLOCK * BLOCK
    assert content.startswith(b"".join(found))
