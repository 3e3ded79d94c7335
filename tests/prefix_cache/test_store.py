"""Columns on disk: whole or absent, shared, bounded, resumed."""

from __future__ import annotations

import json
import os
import time
from functools import partial

import pytest
import torch
from processes import Forked

from vimlight.errors import CacheError
from vimlight.files.leftovers import hidden
from vimlight.prefix_cache.store import ABOUT, CHUNK, Store

ROWS = 3 * CHUNK - 10
WIDTH = 4
BYTES = WIDTH * 4
GB = 1e-9


def values(rows):
    return torch.tensor([[row + 0.25 * k for k in range(WIDTH)] for row in rows])


def computing(log, make=values):
    def compute(chunks):
        for rows in chunks:
            log.append((rows[0], rows[-1]))
            yield rows, {"tokens": make(rows)}

    return compute


def column(path, about="a", max_gb=1.0, dtype=torch.float32, rows=ROWS):
    return Store(path, max_gb).column({"what": about}, rows, BYTES, dtype)


def test_only_chunks_that_are_asked_for_are_computed_and_only_once(tmp_path):
    log, kept = [], column(tmp_path)
    kept.fill(computing(log), [0, 5, CHUNK - 1])
    assert log == [(0, CHUNK - 1)]
    kept.fill(computing(log), range(ROWS))
    assert sorted(log) == [(0, CHUNK - 1), (CHUNK, 2 * CHUNK - 1), (2 * CHUNK, ROWS - 1)]
    rows = [CHUNK + 3, 0, ROWS - 1, 3, 3]
    assert torch.equal(kept.read(rows)["tokens"], values(rows))


def test_a_later_run_reads_what_is_there(tmp_path):
    column(tmp_path).fill(computing([]), range(CHUNK))
    log, kept = [], column(tmp_path)
    kept.fill(computing(log), range(ROWS))
    assert len(log) == 2
    assert torch.equal(kept.read(range(ROWS))["tokens"], values(range(ROWS)))


def test_an_interrupted_run_leaves_whole_chunks(tmp_path):
    def failing(chunks):
        for number, rows in enumerate(chunks):
            if number == 1:
                raise KeyboardInterrupt
            yield rows, {"tokens": values(rows)}

    with pytest.raises(KeyboardInterrupt):
        column(tmp_path).fill(failing, range(ROWS))
    (directory,) = tmp_path.iterdir()
    assert len(list(directory.glob("*.safetensors"))) == 1
    assert len(list(directory.iterdir())) == 2
    log = []
    column(tmp_path).fill(computing(log), range(ROWS))
    assert len(log) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_read_has_the_type_it_was_computed_in(tmp_path, dtype):
    kept = column(tmp_path, dtype=dtype)
    kept.fill(computing([], lambda rows: values(rows) / 3), [0])
    found = kept.read([0, 1])["tokens"]
    assert found.dtype == torch.float32
    assert torch.equal(found, (values([0, 1]) / 3).to(dtype).float())
    kept = column(tmp_path, "b", dtype=dtype)
    kept.fill(computing([], lambda rows: values(rows).bfloat16()), [0])
    assert kept.read([0])["tokens"].dtype == torch.bfloat16


def test_other_inputs_are_another_column(tmp_path):
    for about, dtype, rows in [("a", torch.float32, ROWS), ("b", torch.float32, ROWS), ("a", torch.float16, ROWS),
                               ("a", torch.float32, 9)]:  # fmt: skip
        column(tmp_path, about, dtype=dtype, rows=rows).fill(computing([]), [0])
    assert len(list(tmp_path.iterdir())) == 4
    about = [json.loads((path / ABOUT).read_text()) for path in tmp_path.iterdir()]
    assert {(a["what"], a["dtype"], a["rows"]) for a in about} == {
        ("a", "torch.float32", ROWS), ("b", "torch.float32", ROWS), ("a", "torch.float16", ROWS),
        ("a", "torch.float32", 9),
    }  # fmt: skip


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"PK\x03\x04" + b])
def test_a_damaged_chunk_is_computed_anew_with_a_warning(tmp_path, damage):
    column(tmp_path).fill(computing([]), range(ROWS))
    path = next(tmp_path.glob("*/000001.safetensors"))
    path.write_bytes(damage(path.read_bytes()))
    log, kept = [], column(tmp_path)
    with pytest.warns(UserWarning, match=r"000001.safetensors .*; it is computed anew"):
        kept.fill(computing(log), range(ROWS))
    assert log == [(CHUNK, 2 * CHUNK - 1)]
    assert torch.equal(kept.read([CHUNK])["tokens"], values([CHUNK]))


def test_numbers_that_do_not_fit_the_type_are_an_error(tmp_path):
    kept = column(tmp_path, dtype=torch.float16)
    with pytest.raises(CacheError, match=r"tokens of up to 1e\+06 do not fit float16; set prefix_cache.dtype to bf"):
        kept.fill(computing([], lambda rows: torch.full((len(rows), WIDTH), 1e6)), [0])
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"the prefix cache .* cannot be written"):
        column(tmp_path / "file").fill(computing([]), [0])


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    size = ROWS * BYTES * GB
    for number, about in enumerate("abc"):
        column(tmp_path, about, max_gb=1).fill(computing([]), range(ROWS))
        path = next(path for path in tmp_path.glob(f"*/{ABOUT}") if json.loads(path.read_text())["what"] == about)
        os.utime(path, (number, number))
    (tmp_path / "mine.txt").write_text("the user's own")
    assert column(tmp_path, "b", max_gb=100 * size) is not None  # used again
    assert column(tmp_path, "d", max_gb=4 * size) is not None
    left = {json.loads(path.read_text())["what"] for path in tmp_path.glob(f"*/{ABOUT}")}
    assert left == {"b", "c"}
    assert (tmp_path / "mine.txt").exists()


def test_what_a_killed_process_was_writing_is_swept_and_what_is_being_written_counts(tmp_path, monkeypatch):
    size = ROWS * BYTES
    column(tmp_path, "a").fill(computing([]), range(ROWS))
    chunk = min(tmp_path.glob("*/0*.safetensors"))
    mine = hidden(chunk)
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 2**22 + 1)  # more than any process has
        left = [hidden(chunk), hidden(tmp_path / "column")]
    left[1].mkdir()
    for file in (mine, left[0], left[1] / "0.safetensors"):
        file.write_bytes(bytes(3 * size))
    assert column(tmp_path, "b", max_gb=20 * size * GB) is not None
    assert [path.exists() for path in (mine, *left)] == [True, False, False]
    assert chunk.exists()
    # With three times its size in the file that is being written, the column is more than fits.
    assert column(tmp_path, "b", max_gb=4 * size * GB) is not None
    assert not chunk.exists()


def test_a_run_never_makes_room_at_its_own_cost(tmp_path):
    size = ROWS * BYTES * GB
    store = Store(tmp_path, 2.5 * size)
    first = store.column({"what": "a"}, ROWS, BYTES, torch.float32)
    first.fill(computing([]), range(ROWS))
    assert store.column({"what": "b"}, ROWS, BYTES, torch.float32) is not None
    assert store.column({"what": "c"}, ROWS, BYTES, torch.float32) is None
    assert torch.equal(first.read([1])["tokens"], values([1]))


def test_what_another_process_removes_meanwhile_is_made_again_or_named(tmp_path):
    kept, rounds = column(tmp_path), []

    def losing(times):
        def compute(chunks):
            rounds.append(1)
            yield from computing([])(chunks)
            if len(rounds) <= times:
                for path in tmp_path.glob("*/*.safetensors"):
                    path.unlink()

        return compute

    kept.fill(losing(2), [0])
    assert len(rounds) == 3
    assert torch.equal(kept.read([0])["tokens"], values([0]))
    with pytest.raises(CacheError, match="another process keeps removing"):
        column(tmp_path, "b").fill(losing(100), [0])


def slow(rows):
    time.sleep(0.05)
    return values(rows)


def fill(folder, number):
    """Computes what another process has not, once both are there."""
    (folder / f"ready{number}").touch()
    while len(list(folder.glob("ready*"))) < 2:
        time.sleep(0.01)
    log, kept = [], column(folder / "cache", rows=64 * 20)
    kept.fill(computing(log, slow), range(64 * 20))
    assert torch.equal(kept.read(range(64 * 20))["tokens"], values(range(64 * 20)))
    (folder / f"computed{number}").write_text(str(len(log)))


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path):
    running = [Forked(partial(fill, tmp_path, n), environment=os.environ, folder=tmp_path) for n in range(2)]
    assert [process.wait(300) for process in running] == [0, 0], [process.said.read_text() for process in running]
    computed = [int((tmp_path / f"computed{n}").read_text()) for n in range(2)]
    # Each chunk once, but for a few that both began at the same time.
    assert 20 <= sum(computed) <= 30
    assert min(computed) > 0
    assert len(list((tmp_path / "cache").glob("*/*"))) == 21
