"""`vimlight evaluate` in process: the fixed options, what is written, and every mistake in one line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_world
from rich.console import Console
from tiny_world import CLASSES, command_line

from vimlight.cli import main
from vimlight.report.evaluation import EvaluationTable
from vimlight.report.evaluation_csv import predictions_csv
from vimlight.transmiter.judging.evaluation import evaluate
from vimlight.transmiter.judging.methods import list_methods
from vimlight.transmiter.judging.protocols import PROTOCOLS
from vimlight.transmiter.judging.summary import Run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    main(["evaluate", *(str(word) for word in words)])


def refused(capsys, *words):
    """Runs what must be refused; returns what was said."""
    before = {path for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) <= 2
    assert {path for path in Path().rglob("*") if path.is_file()} == before, "something was left behind"
    return " ".join(said)


def test_the_options_that_scripts_rely_on(world, here, capsys):
    run(
        "--protocol", "base_to_novel", "--base", "0,1,2", "--target", world["target"], "--source", world["source"],
        "--source-tuned", world["source_tuned"], "--adapter", world["adapter"], "--out", "results.json",
    )  # fmt: skip
    found = json.loads(Path("results.json").read_text())
    assert found["protocol"] == "base_to_novel"
    (only,) = found["runs"]
    assert only["groups"]["base"] == {"classes": ["cat", "dog", "fish"], "columns": ["cat", "dog", "fish"]}
    assert set(only["methods"]) == {
        "source_zero_shot", "source_tuned", "target_zero_shot", "eft", "logit_ensemble", "transmiter", "safe",
    }  # fmt: skip
    assert set(only["methods"]) | set(only["left_out"]) == set(list_methods())
    assert only["methods"]["transmiter"]["scores"]["novel"]["per_class"].keys() == {"oak", "pine", "rose"}
    assert only["sources"]["target"]["hash"]
    assert only["sources"]["adapter"]["path"] == str(world["adapter"])
    assert found["promise"]["safe"]["novel"]["cases"] == 1
    shown = capsys.readouterr().out
    assert "base_to_novel: base images among base classes" in shown
    assert "left out: gap_ridge: needs --target-train, --source-train, --source-tuned-train" in shown
    assert "written: results.json" in shown


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_every_protocol_with_everything_there_is(world, here, capsys, protocol):
    shots = ["--shots", "2,4", "--seeds", "0,1"] if protocol == "few_shot" else []
    run("--protocol", protocol, *command_line(world), *shots, "--out=r.json", "--markdown=r.md", "--csv=r.csv")
    found = json.loads(Path("r.json").read_text())
    headline = PROTOCOLS[protocol].headline
    rows = {(row["method"], row["shots"]): row for row in found["summary"] if row["metric"] == headline}
    assert {method for method, _ in rows} == set(list_methods()) - ({"tip_adapter"} & set(found["runs"][0]["left_out"]))
    with Path("r.csv").open() as file:
        flat = list(csv.DictReader(file))
    for (method, count), row in rows.items():
        values = [
            float(line["value"]) for line in flat
            if line["method"] == method and line["metric"] == headline and line["shots"] == str(count or "")
        ]  # fmt: skip
        assert row["mean"] == pytest.approx(sum(values) / len(values))
        assert list(row["seeds"].values()) == values
    text = Path("r.md").read_text()
    assert text.startswith(f"**{protocol}: ")
    assert text.count("\n| ") == 2 + len({method for method, _ in rows})
    assert f"{100 * next(iter(rows.values()))['mean']:.1f}" in text


def test_seeds_and_data_sets_become_one_table_with_averages(here, capsys):
    for dataset, seed in (("pets", 1), ("pets", 2), ("cars", 1), ("cars", 2)):
        tiny_world.build(Path(dataset, str(seed)), seed=seed + 10 * len(dataset) * (dataset == "cars"))
    roles = {role: f"{{dataset}}/{{seed}}/{role}" for role in ("target", "source", "source_tuned")}
    run(
        "--protocol",
        "base_to_novel",
        *command_line(roles),
        "--seeds",
        "1,2",
        "--datasets",
        "pets,cars",
        "--out",
        "r.json",
    )
    found = json.loads(Path("r.json").read_text())
    assert [(one["dataset"], one["seed"]) for one in found["runs"]] == [
        ("pets", 1),
        ("pets", 2),
        ("cars", 1),
        ("cars", 2),
    ]
    rows = {(row["method"], row["dataset"], row["metric"]): row for row in found["summary"]}
    for method in ("eft", "safe"):
        means = [rows[method, dataset, "harmonic"]["mean"] for dataset in ("pets", "cars")]
        assert rows[method, "average", "harmonic"]["mean"] == pytest.approx(sum(means) / 2)
        assert rows[method, "average", "harmonic"]["std"] > 0
    assert found["promise"]["safe"]["harmonic"]["cases"] == 4
    shown = capsys.readouterr().out
    assert "mean ± standard deviation over 2 seeds" in shown
    assert "average harmonic of averages" in shown
    assert "average harmonic is the mean of harmonic means" in shown


def predictions(path="p.csv"):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_predictions_of_every_method_give_its_accuracy_again(world, here, capsys, protocol):
    run("--protocol", protocol, *command_line(world), "--shots=4", "--out=r.json", "--predictions=p.csv")
    (found,) = json.loads(Path("r.json").read_text())["runs"]
    rows = predictions()
    assert list(rows[0]) == ["id", "group", "label", *found["methods"]]
    classes = {name: str(number) for number, name in enumerate(CLASSES)}
    for group, parts in found["groups"].items():
        mine = [row for row in rows if row["group"] == group]
        assert {row["label"] for row in mine} == {classes[name] for name in parts["classes"]}
        for method, result in found["methods"].items():
            assert {row[method] for row in mine} <= {classes[name] for name in parts["columns"]}
            right = sum(row[method] == row["label"] for row in mine)
            assert right / len(mine) == pytest.approx(result["scores"][group]["accuracy"])
            assert len(mine) == result["scores"][group]["count"]
    ids = [row["id"] for row in rows]
    assert sorted(ids) == sorted(set(ids)) == sorted(f"test/{row}.png" for row in range(60))
    assert {row["id"]: row["label"] for row in rows} == {f"test/{row}.png": str(row % 6) for row in range(60)}


def test_predictions_of_several_runs_say_which_and_leave_what_is_missing_blank(open_world):
    methods = ["source_zero_shot", "target_zero_shot"]
    whole, part = (evaluate(open_world(*without), "base_to_base", methods=methods) for without in ((), ("source",)))
    rows = list(csv.reader(io.StringIO(predictions_csv([Run("pets", None, 0, whole), Run("cars", 4, 0, part)]))))
    assert rows[0] == ["dataset", "shots", "id", "group", "label", *methods]
    assert [row[:5] for row in rows[1:3]] == [["pets", "", f"test/{n}.png", "accuracy", str(n)] for n in (0, 1)]
    assert [row[:2] for row in rows[61:]] == [["cars", "4"]] * 60
    assert all(row[5] for row in rows[1:61])
    assert not any(row[5] for row in rows[61:])
    assert [row[6] for row in rows[1:61]] == [row[6] for row in rows[61:]]


def test_json_on_the_standard_output_is_the_file(world, here, capsys):
    run("--protocol", "base_to_base", "--target", world["target"], "--json", "--out", "r.json")
    assert json.loads(capsys.readouterr().out) == json.loads(Path("r.json").read_text())


def test_methods_and_their_settings(world, here, capsys):
    words = command_line(world)
    run(
        "--protocol=base_to_base",
        *words,
        "--methods=eft,safe",
        "--set=eft.alpha=0.25",
        "--set=safe.experts=[eft]",
        "--json",
    )
    found = json.loads(capsys.readouterr().out)["runs"][0]["methods"]
    assert list(found) == ["eft", "safe"]
    assert found["eft"]["choices"] == {"alpha": 0.25}
    assert not found["eft"]["labels"]
    assert set(found["safe"]["choices"]["blocks"][0]["weights"]) == {"target_zero_shot", "eft"}


def test_base_classes_by_name_or_range_or_from_the_manifest(world, here, capsys):
    results = []
    for base in (["--base", "cat,dog,fish"], ["--base", "0-2"], []):
        run("--protocol=base_to_novel", "--target", world["target"], *base, "--json")
        results.append(json.loads(capsys.readouterr().out)["summary"])
    assert results[0] == results[1] == results[2]


def test_the_sources_cost_is_added_where_it_is_known(world, here, capsys):
    run(
        "--protocol=base_to_base",
        *command_line(world),
        "--methods=eft,gap_ridge",
        "--markdown=r.md",
        "--source-gmac=4.1",
    )
    eft, gap = (line for line in Path("r.md").read_text().splitlines() if line.startswith(("| EFT", "| gap")))
    assert "| 16400.000 |" in eft
    assert "| 0.000 |" in gap


def test_files_are_replaced_only_when_asked(world, here, capsys):
    words = ["--protocol=base_to_base", "--target", world["target"]]
    Path("r.md").write_text("mine")
    assert "'r.md' exists; choose another path or pass --overwrite" in refused(capsys, *words, "--markdown=r.md")
    assert Path("r.md").read_text() == "mine"
    run(*words, "--markdown=r.md", "--overwrite")
    assert "target zero-shot" in Path("r.md").read_text()


MISTAKES = {
    "protocol": (["--protocol=base_to_new"], "unknown protocol 'base_to_new'; did you mean 'base_to_novel'"),
    "no protocol": ([], "the following arguments are required: --protocol"),
    "option": (["--protocol=all_classes", "--sauce=x"], "'--sauce' of vimlight evaluate; did you mean '--source'?"),
    "method": (["--protocol=all_classes", "--methods=eftt"], "unknown method 'eftt'; did you mean 'eft'"),
    "set": (["--protocol=all_classes", "--set=alpha=1"], "--set alpha=1: expected METHOD.NAME=VALUE"),
    "method of set": (["--protocol=all_classes", "--set=etf.alpha=1"], "unknown method 'etf'; did you mean 'eft'"),
    "name of set": (["--protocol=all_classes", "--set=eft.alfa=1"], "'alfa'; did you mean 'alpha'"),
    "value of set": (["--protocol=all_classes", "--set=eft.alpha=much"], "method 'eft'"),
    "yaml of set": (["--protocol=all_classes", "--set=eft.alpha=["], "is no valid YAML"),
    "base class": (["--protocol=base_to_novel", "--base=cat,dgo"], "--base: unknown class 'dgo'; did you mean 'dog'"),
    "base index": (["--protocol=base_to_novel", "--base=0,9"], "--base: '9' is not among the classes 0 to 5"),
    "all base": (["--protocol=base_to_novel", "--base=0-5"], "no class is left for 'novel'"),
    "base of none": (["--protocol=base_to_base", "--base=0"], "protocol 'base_to_base' has no base classes"),
    "seeds": (["--protocol=all_classes", "--seeds=one"], "--seeds takes whole numbers from 0 on"),
    "shots": (["--protocol=all_classes", "--shots=0"], "--shots takes whole numbers from 1 on, as in 1,2,4; got '0'"),
    "seed twice": (["--protocol=all_classes", "--seeds=1,1"], "--seeds takes names with commas between, each once"),
    "same seeds": (["--protocol=all_classes", "--seeds=1,2"], "--seeds needs paths with {seed} in them"),
    "data sets": (["--protocol=all_classes", "--datasets=a,b"], "--datasets needs paths with {dataset} in them"),
    "data set": (["--protocol=all_classes", "--source={dataset}"], "has {dataset}; say which with --datasets"),
    "shots of a path": (["--protocol=all_classes", "--source={shots}"], "has {shots}; say which with --shots"),
    "placeholder": (["--protocol=all_classes", "--source={sed}"], "in --source 'sed'; did you mean 'seed'"),
    "no shots": (["--protocol=few_shot"], "needs the number of labelled images of each class: pass --shots 16"),
    "batch size": (["--protocol=all_classes", "--batch-size=0"], "batch_size must be at least 1, got 0"),
    "one file": (["--protocol=all_classes", "--out=r", "--csv=r"], "must name a file each, got one twice"),
    "device": (["--protocol=all_classes", "--device=gpu"], "--device gpu"),
    "no cache": (["--protocol=all_classes", "--source=nowhere"], "logit cache 'nowhere' does not exist"),
    "no adapter": (["--protocol=all_classes", "--adapter=a.safetensors"], "a.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_nothing_behind(world, here, capsys, mistake):
    words, message = MISTAKES[mistake]
    assert message in refused(capsys, "--target", world["target"], "--out=results.json", *words)


def test_a_mistyped_path_is_answered_with_the_nearest(world, here, capsys):
    assert f"did you mean {str(world['target'])!r}" in refused(
        capsys, "--protocol=all_classes", "--target", f"{world['target']}t"
    )


def test_the_best_of_a_column_is_marked(world, open_world):
    found = evaluate(open_world(), "base_to_novel")
    table = EvaluationTable.of([Run("pets", None, 0, found)])
    for number, column in enumerate(table.columns, start=1):
        accuracies = [result.accuracies[column] for result in found.results.values()]
        marked = [row for row in range(len(accuracies)) if table.is_best(row, number)]
        assert marked == [row for row, accuracy in enumerate(accuracies) if accuracy == max(accuracies)]
    assert not table.is_best(0, 0)
    assert not table.is_best(0, len(table.columns) + 1)


def test_a_narrow_terminal_gets_the_costs_below(world, open_world):
    table = EvaluationTable.of([Run("pets", None, 0, evaluate(open_world(), "base_to_novel"))])
    narrow, wide = (Console(file=io.StringIO(), width=width) for width in (60, 250))
    for console in (narrow, wide):
        table.print(console)
        for text in (text for row in table.rows() for text in row):
            assert text in console.file.getvalue()
    assert narrow.file.getvalue().count("method (accuracy, %)") > 2
    assert wide.file.getvalue().count("method (accuracy, %)") == 1
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    table.print(terminal)
    assert max(map(len, terminal.file.getvalue().splitlines())) <= 80


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from vimlight.commands.evaluate import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'rich', 'numpy', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert not done.stderr.strip()
    assert "--source-tuned DIR" in done.stdout
