"""The benchmark suite: every benchmark runs, and what it prints and writes is what it measured."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from torch.nn import functional as F

from benchmarks.__main__ import _SIZES, main, sizes_of
from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.memory import kept_for_backward, peak_bytes
from benchmarks.results import Bar, Figure
from benchmarks.speed.extraction import Published
from vimlight.errors import UnknownNameError

CPU = torch.device("cpu")


def test_every_benchmark_has_sizes_and_every_entry_of_sizes_is_a_benchmark():
    assert set(yaml.safe_load(_SIZES.read_text())) == set(BENCHMARKS)


def test_one_that_fails_costs_no_others_results_and_none_finds_anothers_files(tmp_path, monkeypatch):
    def writes(bench):
        (bench.scratch / "cache").mkdir()
        yield Figure("written", 1.0)

    def fails(bench):
        yield from writes(bench)
        raise RuntimeError("fails")

    for name, benchmark in (("one", writes), ("two", fails)):
        monkeypatch.setitem(BENCHMARKS._entries, name, benchmark)
    monkeypatch.setattr("benchmarks.__main__.sizes_of", lambda name, quick: {})
    with pytest.raises(RuntimeError, match="fails"):
        main(["one", "two", "--scratch", str(tmp_path), "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert list(found["benchmarks"]) == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs(tmp_path, capsys, name):
    main([name, "--quick", "--threads", "1", "--scratch", str(tmp_path), "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "speed.json").read_text())
    entry = found["benchmarks"][name]
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert entry["sizes"] == json.loads(json.dumps(sizes_of(name, quick=True)))
    printed = capsys.readouterr().out
    assert entry["results"]
    for result in entry["results"]:
        assert result["title"] in printed
        for row in result.get("rows", []):
            assert row["seconds"] > 0
            assert row["bar"] is None


def test_ratios_are_taken_round_by_round(tmp_path, monkeypatch):
    bench = Bench(CPU, tmp_path)
    # Rounds run forth and back; the machine is ten times slower in the second.
    clock = iter([(1.0, 1.0), (2.0, 2.0), (20.0, 20.0), (10.0, 10.0), (1.0, 1.0), (2.0, 2.0)])
    monkeypatch.setattr(bench, "seconds", lambda task: next(clock))
    found = bench.compare(
        "title", {"plain": lambda: None, "fast": lambda: None}, rounds=3, at_most={"fast": 1.9}, count=False
    )
    assert [row.ratio for row in found.rows] == [1.0, 2.0]
    assert found.row("fast").ratio_spread == (2.0, 2.0)
    assert found.as_dict()["rows"][1]["met"] is False


def test_slow_tasks_run_twice_alone_and_operations_are_counted(tmp_path):
    calls = {"plain": 0, "slow": 0}
    matrix = torch.randn(8, 8)

    def task(name):
        def run():
            calls[name] += 1
            return matrix @ matrix @ matrix if name == "slow" else matrix @ matrix

        return run

    found = Bench(CPU, tmp_path).compare("t", {n: task(n) for n in calls}, rounds=5, rarely={"slow"})
    # Once to warm up, and once each for operations, peak and kept memory.
    assert calls == {"plain": 9, "slow": 6}
    assert found.row("slow").flop_ratio == 2.0
    assert found.row("plain").flops == 2 * 8**3


def test_the_peak_is_what_lives_at_a_time():
    x = torch.ones(1000)

    def task():
        y = x + 1
        for _ in range(5):
            y = y * 2
        return y.view(10, 100).sum()

    assert peak_bytes(task, CPU) == 2 * 4000


def test_what_is_kept_for_the_backward_pass_leaves_out_weights():
    weight, x = torch.ones(10, 10, requires_grad=True), torch.ones(5, 10)
    assert kept_for_backward(lambda: F.linear(x, weight)) == 0
    assert kept_for_backward(lambda: F.linear(x * 2, weight)) == 200
    with torch.no_grad():
        assert kept_for_backward(lambda: F.linear(x * 2, weight)) == 0


def test_bars():
    assert Bar(at_most=1.1).met(1.1)
    assert not Bar(at_most=1.1).met(1.2)
    assert Bar(at_least=3).met(4)
    assert not Bar(at_least=3).met(2)
    assert str(Bar(at_least=3)) == ">= 3"
    assert str(Bar(at_most=2)) == "<= 2"


def test_an_unknown_benchmark_is_an_error_that_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown benchmark 'fusd'.*fused"):
        main(["fusd"])


def test_the_published_basis_is_an_orthogonal_map_that_starts_at_the_identity():
    model = Published(16)
    logits = torch.randn(5, 16)
    torch.testing.assert_close(model(logits), logits, atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in model.basis.parameters():
            parameter.add_(torch.randn_like(parameter))
    torch.testing.assert_close(model.basis.weight @ model.basis.weight.T, torch.eye(16), atol=1e-5, rtol=0)
