"""Batches dealt out to several processes: those of one process, each once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tiny_training import digits, scenes

from vimlight.data.dealing import RowsLeft, WholeBatches, dealt


def batches_of(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("count", [0, 1, 3, 12, 13])
def test_every_image_once_in_the_batch_of_one_process(count, size, world):
    samplers = [WholeBatches(count, size, world, rank) for rank in range(world)]
    assert all(len(sampler) == len(list(sampler)) for sampler in samplers)
    counted = [list(sampler) for sampler in samplers if not sampler.spare]
    found = sorted(batch for rows in counted for batch in batches_of(rows, size))
    assert found == batches_of(list(range(count)), size)
    assert max(map(len, counted)) <= -(-count // (size * world)) * size if counted else not count
    spare = [list(sampler) for sampler in samplers if sampler.spare]
    assert spare == [[0]] * (max(0, world - -(-count // size)) if count else 0)


def processes(data, rank, world=2):
    data.trainer = SimpleNamespace(
        world_size=world, global_rank=rank, training=False, testing=True, predicting=False,
        strategy=SimpleNamespace(root_device=SimpleNamespace(type="cpu")),
        lightning_module=SimpleNamespace(backbone=SimpleNamespace(preprocessing=data._preprocessing)),
    )  # fmt: skip
    return data


@pytest.mark.parametrize("loader", ["val_dataloader", "test_dataloader", "predict_dataloader"])
@pytest.mark.parametrize("make", [scenes, digits])
def test_loaders_of_both_data_modules_deal(vit, loader, make):
    data = make(preprocessing=vit.preprocessing, test_limit=13, batch_size=5)
    expected = [batch["id"] for batch in getattr(data, loader)()]
    found = [list(getattr(processes(data, rank), loader)()) for rank in (0, 1)]
    assert sorted(batch["id"] for part in found for batch in part if "spare" not in batch) == sorted(expected)
    many = [list(getattr(processes(data, rank, 9), loader)()) for rank in range(9)]
    assert [len(part) for part in many] == [1] * 9
    assert sum("spare" not in part[0] for part in many) == len(expected)
    assert all(part[0]["id"] == expected[0][:1] for part in many if "spare" in part[0])


def test_one_process_has_no_sampler_of_its_own():
    assert dealt(None, 13, 4) is None
    assert dealt(SimpleNamespace(world_size=1), 13, 4) is None


@pytest.mark.parametrize("done", [set(), {0, 1, 2, 3}, {4, 5, 6, 7}, {*range(8)}, {*range(13)}])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_rows_that_are_done_are_left_out_and_no_process_is_left_without_one(world, done):
    samplers = [
        RowsLeft(13, 4, SimpleNamespace(world_size=world, global_rank=rank), lambda: done) for rank in range(world)
    ]
    found = [list(sampler) for sampler in samplers]
    assert {row for rows in found for row in rows} - done == set(range(13)) - done
    for sampler, rows in zip(samplers, found, strict=True):
        assert rows
        if rows != [sampler._rows[-1]]:
            assert not done & set(rows)
