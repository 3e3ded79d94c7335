"""Trainings that keep less for the backward pass learn what those that keep all do."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near
from tiny_training import digits, downstream, fill, learned, midstream, scenes, tiny_backbone, trainer

from vimlight.backbone.recomputing import MEMORY, Ledger
from vimlight.errors import UnknownNameError


@pytest.fixture
def ledgers(monkeypatch):
    """The ledgers that were opened."""
    opened, enter = [], Ledger.__enter__
    monkeypatch.setattr(Ledger, "__enter__", lambda ledger: opened.append(ledger) or enter(ledger))
    return opened


def assert_all_the_same(results):
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        for name, expected in results[0].items():
            assert_near(other[name], expected)


def test_a_module_is_the_same_whatever_is_kept(tmp_path, ledgers):
    results, opened = [], []
    for memory in MEMORY:
        data = scenes(train=16)
        plugin = {"kind": "adapter_plus", "hidden": 2}
        model = midstream(tiny_backbone(), data, plugin=plugin, memory=memory)
        torch.manual_seed(4)
        trainer(tmp_path, limit_val_batches=0).fit(model, datamodule=data)
        results.append(learned(model))
        opened.append(len(ledgers))
    assert opened[0] == 0
    assert 0 < opened[1] < opened[2]
    assert_all_the_same(results)


@pytest.mark.parametrize("head", ["ridge", "linear"])
def test_so_are_gates_and_what_is_trained_beside_the_zoo(tmp_path, ledgers, head):
    backbone, results = tiny_backbone(), []
    fill(tmp_path / "zoo", backbone, {"one": 0.2, "two": 0.3})
    extra = {"kind": "lora", "rank": 2}
    for memory in MEMORY:
        data = digits(shots=2)
        model = downstream(
            backbone, data, tmp_path / "zoo", head=head, extra_module=extra, start="equal", memory=memory
        )
        trainer(tmp_path, limit_val_batches=0).fit(model, datamodule=data)
        results.append(learned(model))
    assert ledgers
    assert_all_the_same(results)


def test_a_misspelt_mode_is_refused_before_anything_is_loaded():
    with pytest.raises(UnknownNameError, match="unknown memory 'leaner'; did you mean 'lean'"):
        midstream(tiny_backbone(), scenes(train=16), memory="leaner")
