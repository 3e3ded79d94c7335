"""Parquet tables hold anything; what is no number or label is refused in one line."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from vimlight.data.columns import read_columns
from vimlight.errors import DataError, VimlightError
from vimlight.transmiter.cache.tables import read_array, read_labels

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NUMBERS = {
    "whole": pa.array([1, 2]),
    "half": pa.array(np.array([1.0, 2.0], np.float16)),
    "lists": pa.array([[1.0, 2.0], [3.0, 4.0]]),
    "large lists": pa.array([[1.0], [2.0]], pa.large_list(pa.float32())),
    "lists of one size": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "null": pa.array([1.0, None]),
    "null within": pa.array([[1.0], [None]]),
}
OTHERS = {
    "nothing": pa.nulls(2),
    "flags": pa.array([True, False]),
    "bytes": pa.array([b"a", b"\xff"]),
    "decimals": pa.array([Decimal("1.5"), Decimal("2.5")]),
    "times": pa.array([0, 2**62], pa.timestamp("ms")),
    "days": pa.array([0, 1], pa.date32()),
    "spans": pa.array([0, 1], pa.duration("s")),
    "records": pa.array([{"a": 1}, {"a": 2}]),
    "pairs": pa.array([[("a", 1.0)], [("b", 2.0)]], pa.map_(pa.string(), pa.float64())),
    "categories": pa.array(["a", "b"]).dictionary_encode(),
    "lists of texts": pa.array([["a"], ["b"]]),
    "lists of lists": pa.array([[[1.0]], [[2.0]]]),
    "no list": pa.array([[1.0], None]),
    "lists of nothing": pa.array([[], []], pa.list_(pa.float32())),
}


def written(path, column):
    parquet.write_table(pa.table({"x": column, "id": ["a", "b"]}), path)
    return path


@pytest.mark.parametrize("kind", NUMBERS)
def test_columns_of_numbers(tmp_path, kind):
    found = read_array(written(tmp_path / "a.parquet", NUMBERS[kind]))
    assert found.values.shape[0] == 2
    assert found.ids == ["a", "b"]


def said(read, path):
    """The error that a reader raises, nothing where it reads the file."""
    try:
        read(path)
    except VimlightError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", OTHERS)
def test_columns_of_something_else(tmp_path, kind):
    path = written(tmp_path / "a.parquet", OTHERS[kind])
    with pytest.raises(DataError, match=r"a\.parquet.*(is no number|has no numbers|numbers, expected|is damaged)"):
        read_array(path)
    messages = [said(read, path) for read in (read_array, read_labels, read_columns)]
    assert all(message is None or len(message.splitlines()) == 1 for message in messages)
