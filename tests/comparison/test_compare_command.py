"""`vimlight compare`: from YAML alone to the tables, going on where it stopped, shard by shard."""

from __future__ import annotations

import json

import pytest
from tiny_plans import content, manifest, write

from vimlight import cli
from vimlight.comparison.bench import Bench
from vimlight.comparison.catalogue import list_methods
from vimlight.comparison.reading import read_plan
from vimlight.errors import ConfigError
from vimlight.training.downstream import DownstreamModule


def results(folder):
    """Returns the values of all records by what they are of."""
    records = json.loads((folder / "results.json").read_text())["records"]
    return {(r["backbone"], r["task"], r["method"], r["shots"], r["seed"]): r["value"] for r in records}


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}


@pytest.mark.usefixtures("in_process")
def test_a_plan_of_ones_own_from_yaml_to_tables_that_goes_on(tmp_path, capsys):
    out = tmp_path / "out"
    cli.main(["compare", write(tmp_path), "--out", str(out)])
    records = json.loads((out / "results.json").read_text())["records"]
    assert {(r["task"], r["method"], r["shots"], r["seed"]) for r in records} == {
        ("down", method, 2, seed) for method in ("none", "ens_moe", "uniform") for seed in (0, 1)
    }
    for record in records:
        assert record["metric"] == "accuracy"
        assert 0 <= record["value"] <= 1
        assert record["parameters"] > 0
        assert record["seconds"] >= 0
    costs = {record["method"]: record["flops"] for record in records}
    assert costs["none"] == 1 < costs["ens_moe"]
    assert "| method | down, accuracy ↑ | difference to none |" in (out / "table.md").read_text()
    assert (out / "table.csv").read_text().startswith("backbone,shots,method,task")
    page = (out / "report.html").read_text()
    assert "ens_moe for down on test_vit" in page
    assert "W/T/L" in capsys.readouterr().out
    first = files(out)

    # Another method is computed alone; what is there stays as it is.
    more = write(tmp_path, methods=["none", "ens_moe", "uniform", "best_single"])
    cli.main(["compare", more, "--out", str(out), "--dry-run"])
    assert "1 of 1 modules and 6 of 8 results are done" in capsys.readouterr().out
    cli.main(["compare", more, "--out", str(out)])
    assert {name: time for name, time in files(out).items() if name in first} == first
    assert len(files(out)) == 8

    # Other images of the task change the results of that task alone.
    manifest(tmp_path / "other", seed=2)
    tasks = [*content(tmp_path)["downstream"], {"name": "other", "dataset": "manifest"}]
    tasks[1]["dataset_args"] = {"path": str(tmp_path / "other" / "list.csv")}
    both = write(tmp_path, downstream=tasks)
    cli.main(["compare", both, "--out", str(out), "--dry-run"])
    assert "down, 2 shots, seed 0, on test_vit: 3 of 3 done" in capsys.readouterr().out
    image = tmp_path / "down" / "0_0.png"
    image.write_bytes((tmp_path / "down" / "1_1.png").read_bytes())
    cli.main(["compare", both, "--out", str(out), "--dry-run"])
    printed = capsys.readouterr().out
    assert "module mid on test_vit: done" in printed
    assert "down, 2 shots, seed 0, on test_vit: 0 of 3 done" in printed


@pytest.mark.usefixtures("in_process")
def test_shards_joined_are_one_run(tmp_path, capsys):
    plan = write(tmp_path, methods=["none", "uniform"], seeds=[0, 1, 2])
    cli.main(["compare", plan, "--out", str(tmp_path / "one")])
    for shard in ("2/2", "1/2"):
        cli.main(["compare", plan, "--out", str(tmp_path / "two"), "--shard", shard])
    assert "4 of 6 results are still to come" in capsys.readouterr().out
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert len(results(tmp_path / "one")) == 6


@pytest.mark.usefixtures("in_process")
def test_methods_over_the_same_modules_share_a_ranking_that_changes_no_result(tmp_path, monkeypatch):
    from vimlight.comparison import fits

    ranked, rank = [], DownstreamModule._rank
    monkeypatch.setattr(DownstreamModule, "_rank", lambda model: ranked.append(model.settings["how"]) or rank(model))
    alone = {}
    for method in ("ens_moe", "router"):
        fits._memory.cache_clear()
        cli.main(["compare", write(tmp_path, methods=["none", method]), "--out", str(tmp_path / method)])
        alone |= results(tmp_path / method)
    assert ranked == ["ens_moe", "ens_moe", "router", "router"], "each seed has images of its own"
    fits._memory.cache_clear()
    cli.main(["compare", write(tmp_path, methods=["none", "ens_moe", "router"]), "--out", str(tmp_path / "both")])
    assert ranked[4:] == ["ens_moe", "ens_moe"]
    assert results(tmp_path / "both") == alone


@pytest.mark.usefixtures("in_process")
def test_a_job_that_fails_leaves_what_is_done(tmp_path, monkeypatch, capsys):
    plan, out = write(tmp_path), tmp_path / "out"
    from vimlight.comparison import fits

    real, calls = fits._result, []

    def failing(bench, fit):
        calls.append(str(fit))
        if len(calls) == 3:
            raise ConfigError("no more")
        return real(bench, fit)

    monkeypatch.setattr(fits, "_result", failing)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", plan, "--out", str(out)])
    assert stopped.value.code == 2
    assert "vimlight: down, 2 shots, seed 0, on test_vit: no more" in capsys.readouterr().err
    assert len(files(out)) == 5
    assert not list((out / ".running").iterdir())
    first = files(out)
    cli.main(["compare", plan, "--out", str(out)])
    assert first.items() <= files(out).items()
    # Nothing was fitted twice but what failed.
    assert len(calls) == 7


@pytest.mark.usefixtures("in_process")
def test_the_demo_s_first_half_is_a_plan_and_leaves_one_page(tmp_path):
    from vimlight.commands import demo

    plan, out = read_plan(write(tmp_path, methods=["none", "uniform"], seeds=0)), tmp_path / "out"
    demo.both(plan, None, out, overwrite=False)
    assert "<h1>vimlight demo</h1>" in (out / "report.html").read_text()
    assert len(results(out)) == 2
    with pytest.raises(ConfigError, match=r"report\.html exists; choose another --out, or pass --overwrite"):
        demo.both(plan, None, out, overwrite=False)
    demo.both(plan, None, out, overwrite=True)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b"])
def test_shares_that_cannot_be(tmp_path, capsys, shard):
    with pytest.raises(SystemExit):
        cli.main(["compare", "plan.yaml", "--out", str(tmp_path), "--shard", shard])
    assert f"--shard {shard}: expected I/N with I from 1 to N" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("head", ["ridge", "linear"])
def test_every_method_is_fitted(tmp_path, head):
    pytest.importorskip("peft")
    plan = content(tmp_path)
    plan["midstream"].append({"name": "twin", **{k: plan["midstream"][0][k] for k in ("dataset", "dataset_args")}})
    plan["downstream"][0]["head"] = head
    methods = [{name: {"epochs": 2}} for name in list_methods()]
    path = write(tmp_path, midstream=plan["midstream"], downstream=plan["downstream"], methods=methods, seeds=0)
    cli.main(["compare", path, "--out", str(tmp_path / "out")])
    records = json.loads((tmp_path / "out" / "results.json").read_text())["records"]
    found = {record["method"]: record for record in records}
    assert set(found) == set(list_methods())
    assert found["none"]["flops"] == found["last_feature"]["flops"] == 1
    assert found["k_streams"]["flops"] == pytest.approx(2, rel=0.2)
    assert found["last_feature"]["parameters"] < found["none"]["parameters"] < found["module_alone"]["parameters"]
    assert found["lora_alone"]["parameters"] < found["full_tuning"]["parameters"]
    if head == "ridge":
        assert found["hindsight"]["value"] >= max(found[name]["value"] for name in ("none", "uniform", "best_single"))


@pytest.mark.parametrize("stage", ["midstream", "downstream"])
def test_data_of_ones_own_that_are_missing_are_a_mistake(tmp_path, capsys, stage):
    gone = {"name": "gone", "dataset": "manifest", "dataset_args": {"path": "nowhere.csv"}}
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", write(tmp_path, **{stage: [gone]}), "--out", str(tmp_path / "out"), "--dry-run"])
    assert stopped.value.code == 2
    assert "nowhere.csv" in capsys.readouterr().err


def test_a_dry_run_downloads_nothing(tmp_path, capsys, monkeypatch):
    from torchvision import datasets

    class Far(datasets.VisionDataset):
        def __init__(self, root, split="train", download=False):
            assert not download
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")

    monkeypatch.setattr(datasets, "SVHN", Far)
    far = {"name": "far", "dataset": "torchvision", "dataset_args": {"name": "SVHN", "root": "data", "download": True}}
    cli.main(["compare", write(tmp_path, downstream=[far]), "--out", str(tmp_path / "out"), "--dry-run"])
    assert "far, 2 shots, seed 0, on test_vit: 0 of 3 done" in capsys.readouterr().out


EVERY_WAY = ["none", "last_feature", "uniform", "best_single", "select", "k_streams", "hindsight", "fresh_module"]


@pytest.mark.usefixtures("in_process")
def test_kept_prefixes_change_no_result(tmp_path):
    pytest.importorskip("peft")
    plugin = {"kind": "convpass", "hidden": 2, "blocks": "last:1"}
    methods = [*EVERY_WAY, "module_alone", {"lora_alone": {"blocks": "last:1"}}]
    common = {"plugin": plugin, "methods": methods, "seeds": 0}
    cli.main(["compare", write(tmp_path, **common), "--out", str(tmp_path / "without")])
    cli.main(["compare", write(tmp_path, **common, prefix_cache={"dtype": "float32"}), "--out", str(tmp_path / "with")])
    assert results(tmp_path / "with") == results(tmp_path / "without")
    assert any((tmp_path / "with" / "prefix").iterdir())
    assert not (tmp_path / "without" / "prefix").exists()


@pytest.mark.usefixtures("in_process")
def test_kept_prefixes_in_bfloat16(tmp_path):
    plugin = {"kind": "convpass", "hidden": 2, "blocks": "last:1"}
    plan = write(tmp_path, plugin=plugin, prefix_cache={}, precision="bf16-mixed", methods=["none", "ens_moe"], seeds=0)
    cli.main(["compare", plan, "--out", str(tmp_path / "out")])
    assert len(results(tmp_path / "out")) == 2


@pytest.mark.usefixtures("in_process")
def test_selecting_on_remembered_features_is_what_the_downstream_model_does(tmp_path, monkeypatch):
    manifest(tmp_path / "more", seed=3)
    midstream = [
        *content(tmp_path)["midstream"],
        {"name": "more", "dataset": "manifest", "dataset_args": {"path": str(tmp_path / "more" / "list.csv")}},
    ]
    plan = write(tmp_path, midstream=midstream, methods=["none", "select", "best_single"], shots=[2, 3])
    cli.main(["compare", plan, "--out", str(tmp_path / "remembered")])
    monkeypatch.setattr(Bench, "is_closed", lambda self, method: False)
    cli.main(["compare", plan, "--out", str(tmp_path / "trained")])
    assert results(tmp_path / "trained") == pytest.approx(results(tmp_path / "remembered"))


@pytest.mark.usefixtures("in_process")
def test_methods_may_stand_with_some_shots_and_seeds_alone(tmp_path, capsys):
    plan = write(tmp_path, methods=["none", {"uniform": {"shots": [3], "seeds": [1]}}], shots=[2, 3])
    cli.main(["compare", plan, "--out", str(tmp_path / "out"), "--dry-run"])
    assert "0 of 5 results are done" in capsys.readouterr().out
    cli.main(["compare", plan, "--out", str(tmp_path / "out")])
    assert {(method, shots, seed) for _, _, method, shots, seed in results(tmp_path / "out")} == {
        ("none", 2, 0), ("none", 2, 1), ("none", 3, 0), ("none", 3, 1), ("uniform", 3, 1),
    }  # fmt: skip
    assert "still to come" not in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
def test_steps_are_limited_whatever_the_number_of_images(tmp_path, monkeypatch):
    taken = []
    real = DownstreamModule.training_step
    monkeypatch.setattr(DownstreamModule, "training_step", lambda self, *a: taken.append(1) or real(self, *a))
    plan = write(tmp_path, methods=["none", {"ens_moe": {"epochs": 5, "steps": 2, "seeds": [0]}}])
    cli.main(["compare", plan, "--out", str(tmp_path / "out")])
    assert len(taken) == 2
