"""Items are worked on by several threads, in forked processes too, or fetched by one beforehand."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import pytest
import torch

from vimlight.threads import ahead, on_threads


def test_results_keep_the_order_of_the_items():
    together = threading.Barrier(3)

    def one(item: int) -> int:
        together.wait(timeout=20)
        return item * item

    assert on_threads(one, range(3)) == [0, 1, 4]


def test_errors_are_raised():
    with pytest.raises(ZeroDivisionError):
        on_threads(lambda item: 1 // item, range(3))


def _sums() -> None:
    threads = torch.get_num_threads()
    assert on_threads(lambda item: int(torch.bincount(torch.full((item,), 2)).sum()), range(32)) == list(range(32))
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes may not be forked")
def test_a_forked_process_may_compute_on_threads():
    _sums()
    forked = multiprocessing.get_context("fork").Process(target=_sums)
    forked.start()
    forked.join(timeout=60)
    assert forked.exitcode == 0


def test_items_are_fetched_while_the_one_before_is_worked_on():
    fetched = [threading.Event() for _ in range(4)]

    def items():
        for number, event in enumerate(fetched):
            event.set()
            yield number

    for number in ahead(items()):
        assert fetched[min(number + 1, 3)].wait(timeout=20)


def test_an_error_comes_behind_the_items_before_it():
    items = ahead(1 // (2 - number) for number in range(4))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)
