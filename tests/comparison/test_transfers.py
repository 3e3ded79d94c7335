"""Comparisons of transfers: what plans say, what is drawn, what is judged, and that a broken run goes on."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from tiny_pools import CLASSES, TUNING, transfers, write_pools, write_transfers

from vimlight.commands import compare
from vimlight.comparison.reading import read_any
from vimlight.comparison.transfers.plan import transfers_of
from vimlight.comparison.transfers.pools import draw_caches, halves
from vimlight.comparison.transfers.study import SHOWN, TransferStudy
from vimlight.errors import ConfigError, DataError, UnknownNameError
from vimlight.transmiter import LogitCache


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("pools"))


WRONG = {
    "key": ({"shot": 4}, UnknownNameError, "unknown key 'shot'; did you mean 'shots'"),
    "method": ({"methods": ["eff"]}, UnknownNameError, r"methods\[0\]: unknown method 'eff'; did you mean 'eft'"),
    "settings": ({"methods": [3]}, ConfigError, r"methods\[0\]: a name, or one with settings.*got 3"),
    "setting": ({"methods": [{"eft": {"beta": 1}}]}, UnknownNameError, "setting of method 'eft'"),
    "method twice": ({"methods": ["eft", "eft"]}, ConfigError, "methods: 'eft' stands there twice"),
    "promise": ({"methods": ["eft", "source_tuned"]}, ConfigError, "methods: 'target_zero_shot' is missing"),
    "pair": ({"pairs": [["small"]]}, ConfigError, r"transfer.pairs\[0\]: expected a weak and a strong model"),
    "pair twice": ({"pairs": [["small", "large"]] * 2}, ConfigError, "'small to large' stands there 2 times"),
    "no pair": ({"pairs": []}, ConfigError, "transfer.pairs: there is nothing in the list"),
    "no data": ({"datasets": []}, ConfigError, "transfer.datasets: there is nothing in the list"),
    "pool": ({"datasets": ["pond"]}, ConfigError, "transfer.pools: there is no cache '.*small/pond/train'"),
    "tuning": ({"tunings": [{**TUNING, "method": "lore"}]}, UnknownNameError, r"tunings\[0\].method: unknown way"),
    "type": ({"tunings": [{**TUNING, "epochs": "x"}]}, ConfigError, r"transfer.tunings\[0\].epochs: expected int"),
    "shots": ({"shots": 0}, ConfigError, "shots: must be at least 1, got 0"),
    "validation": ({"val_shots": 0}, ConfigError, "val_shots: must be at least 1, got 0"),
    "seeds": ({"seeds": [1, 1]}, ConfigError, "seeds: 1 stands there 2 times"),
}


@pytest.mark.parametrize(("changes", "kind", "text"), WRONG.values(), ids=WRONG)
def test_mistakes_of_a_plan_are_named_before_any_work(pools, changes, kind, text):
    with pytest.raises(kind, match=text):
        transfers_of(transfers(pools, **changes))


def test_the_models_of_the_promise_come_first_and_everything_else_in_order(pools):
    plan = transfers_of(transfers(pools))
    assert list(plan.methods) == ["target_zero_shot", "source_tuned", "eft", "transmiter", "safe"]


@pytest.mark.parametrize("count", [4, 5, 10])
def test_halves_part_the_classes_and_depend_on_the_seed(count):
    parts = halves(count, 0)
    assert sorted(parts["base"] + parts["novel"]) == list(range(count))
    assert len(parts["base"]) - len(parts["novel"]) == count % 2
    assert parts == halves(count, 0)
    assert any(halves(count, seed) != parts for seed in range(1, 5))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_class_alone_is_no_half(count):
    with pytest.raises(DataError, match=f"{count} classes make no two halves of at least 2 classes each"):
        halves(count, 0)


def test_models_of_one_seed_see_the_same_labelled_images_of_base_classes_alone(pools, tmp_path):
    drawn = {m: draw_caches(pools / m / "zoo", halves(6, 1), 1, 3, 2, tmp_path / m) for m in ("small", "large")}
    for split, each in (("train", 3), ("val", 2)):
        ids = [list(caches[split].ids) for caches in drawn.values()]
        assert ids[0] == ids[1]
        assert set(drawn["small"][split].labels.tolist()) == set(halves(len(CLASSES), 1)["base"])
        assert len(ids[0]) == 3 * each
    assert not set(drawn["small"]["train"].ids) & set(drawn["small"]["val"].ids)
    assert torch.equal(
        drawn["small"]["test"].features(slice(0, 9)), LogitCache.open(pools / "small/zoo/test").features(slice(0, 9))
    )


def test_validation_takes_what_is_left(pools, tmp_path):
    assert len(draw_caches(pools / "small" / "zoo", halves(6, 0), 0, 4, 16, tmp_path)["val"]) == 3 * 2


def test_too_few_images_are_named(pools, tmp_path):
    with pytest.raises(DataError, match=r"'(ant|bee|cat|dog|elk|fox)'"):
        draw_caches(pools / "small" / "zoo", halves(6, 0), 0, 6, 16, tmp_path)


def _compared(root, capsys, *flags, **changes):
    compare.main([write_transfers(root, **changes), "--out", str(root / "out"), *flags])
    return capsys.readouterr().out


def test_a_plan_of_transfers_ends_in_the_same_files_as_others(tmp_path, in_process, capsys):
    write_pools(tmp_path / "pools")
    shown = _compared(tmp_path, capsys, tunings=[{**TUNING, "extraction_epochs": 2}])
    out = tmp_path / "out"
    content = json.loads((out / "results.json").read_text())
    assert content["whole"]
    assert "NaN" not in (out / "results.json").read_text()
    assert len(content["records"]) == 5 * len(SHOWN)
    assert "EFT" in shown
    assert "broken" in shown
    table = (out / "table.md").read_text()
    assert table.startswith(
        "### small to large, adapter, 3-shot: means, %\n\n| method | harmonic | base | novel | all |"
    )
    assert "### small to large, adapter: harmonic, 3-shot" in table
    with next(out.glob("predictions/*.base_to_novel.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * len(CLASSES)
    base = next(record for record in content["records"] if record["method"] == "EFT" and ": base" in record["backbone"])
    right = [row["eft"] == row["label"] for row in rows if row["group"] == "base"]
    assert base["value"] == pytest.approx(sum(right) / len(right))
    [result] = (json.loads(file.read_text()) for file in (out / "results").iterdir())
    assert all(set(found["margins"]) == {"base", "novel", "all"} for found in result["methods"].values())
    assert not list((out / "moves").iterdir())


def test_shards_share_the_work_and_what_is_done_is_not_done_again(tmp_path, in_process, capsys, monkeypatch):
    made = []

    def move_group(study, move, pulse):
        made.append(str(move))
        methods = {
            name: {"accuracies": dict.fromkeys(SHOWN, 0.5), "margins": {"base": {"difference": 0.0, "p": 1.0}},
                   "parameters": 0, "added_flops": 0.0, "encoders": ["target"], "labels": False, "seconds": 0.0}
            for name in study.plan.methods
        }  # fmt: skip
        study.results.write(move.key, {"methods": methods})
        pulse.step()

    monkeypatch.setattr("vimlight.comparison.transfers.moving.move_group", move_group)
    write_pools(tmp_path / "pools")
    changes = {"seeds": [0, 1], "pairs": [["small", "large"], ["large", "small"]]}
    assert "0 of 4 results are done" in _compared(tmp_path, capsys, "--dry-run", **changes)
    assert "2 of 4 results are still to come" in _compared(tmp_path, capsys, "--shard", "1/2", **changes)
    assert "2 of 4 results are done" in _compared(tmp_path, capsys, "--dry-run", **changes)
    assert "all directions" in _compared(tmp_path, capsys, **changes)
    assert len(made) == len(set(made)) == 4
    _compared(tmp_path, capsys, **changes, methods=["source_tuned", "target_zero_shot"])
    assert len(made) == 8


def test_results_depend_on_the_pools(tmp_path):
    first, second = ({move.key for move in _study(tmp_path / name, datasets).jobs()} for name, datasets in
                     (("a", ("zoo",)), ("b", ("farm", "zoo"))))  # fmt: skip
    assert first.isdisjoint(second)


def _study(root, datasets):
    write_pools(root / "pools", datasets)
    return TransferStudy.of(read_any(write_transfers(root)), root / "out")
