"""Plans are read from YAML, and every mistake in one is named before any work starts."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
import yaml
from tiny_plans import BACKBONE, content
from tiny_training import fill, tiny_backbone

from vimlight.comparison.catalogue import list_methods, method_of
from vimlight.comparison.reading import plan_of, read_plan
from vimlight.errors import ConfigError, VimlightError


@pytest.fixture
def plan(tmp_path):
    return content(tmp_path)


def changed(plan, where, value):
    """Returns the plan with one value set, by the keys and numbers that lead to it."""
    found = copy.deepcopy(plan)
    place = found
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    return found


MISTAKES = [
    (["backbones"], {}, r"unknown key 'backbones'; did you mean 'backbone'"),
    (["midstream", 0, "epoch"], 3, r"unknown key 'midstream\[0\]\.epoch'; did you mean 'midstream\[0\]\.epochs'"),
    (["downstream", 0, "withot"], [], r"unknown key 'downstream\[0\]\.withot'; did you mean .*\.without'"),
    (["midstream", 0, "epochs"], "four", r"midstream\[0\]\.epochs: expected int \| None, got 'four'"),
    (["midstream", 0, "epochs"], 0, r"midstream\[0\]\.epochs: must be at least 1, got 0"),
    (["midstream", 0], "mid", r"midstream\[0\]: expected keys with values, got str"),
    (["midstream", 0], {"name": "a"}, r"midstream\[0\]: the key 'dataset' is missing"),
    (["midstream", 0, "name"], "Mid stream", r"midstream\[0\]\.name: 'Mid stream' cannot name a module"),
    (["midstream", 0, "dataset"], "manifst", r"midstream\[0\]: unknown data set 'manifst'; did you mean 'manifest'"),
    (["downstream", 0, "dataset_args"], {"pth": "x"}, r"downstream\[0\]: unknown argument .* 'pth'; did .* 'path'"),
    (["downstream", 0, "task"], "clasification", r"downstream\[0\]\.task: unknown task 'clasification'; did you mean"),
    (["downstream", 0, "augment"], "lite", r"augmentation at downstream\[0\]\.augment: 'lite'; did you mean 'light'"),
    (["downstream", 0, "without"], ["midd"], r"module at downstream\[0\]\.without: 'midd'; did you mean 'mid'"),
    (["downstream", 0, "without"], ["mid"], r"method 'ens_moe' needs modules, but 'down' goes without all of them"),
    (["downstream", 0, "shots"], [0], r"downstream\[0\]\.shots: expected numbers from 1 on, or 'full', got 0"),
    (["plugin"], "convpas", r"plugin: unknown plug-in 'convpas'; did you mean 'convpass'"),
    (["plugin"], {"kind": ["convpass"]}, r"plugin: unknown plug-in \"\['convpass'\]\"; did you mean 'convpass'"),
    (["plugin"], {"kind": None}, r"plugin: unknown plug-in 'None'; valid: "),
    (["plugin"], None, r"plugin: expected str \| dict\[str, Any\], got None"),
    (["downstream", 0, "task"], {"kind": {}}, r"downstream\[0\]\.task: unknown task '\{\}'; valid: "),
    (["downstream", 0, "without"], None, r"downstream\[0\]\.without: expected list\[str\], got None"),
    (["downstream", 0, "name"], None, r"downstream\[0\]\.name: expected str, got None"),
    (["plugin"], {"hidden": 4}, r"plugin: the settings \{'hidden': 4\} lack 'kind'"),
    (["backbone"], {"img_size": 4}, r"backbone\[0\]: the settings \{'img_size': 4\} lack 'name'"),
    (["backbone"], [BACKBONE, BACKBONE], r"backbone: test_vit \(.*\) stands there twice"),
    (["methods"], ["none", "uniformm"], r"methods\[1\]: unknown method 'uniformm'; did you mean 'uniform'"),
    (["methods"], ["none", {"a": {"how": "ens_moe", "topk": 1}}], r"setting of method 'a': 'topk'; did .* 'top_k'"),
    (["methods"], ["none", {"a": {"how": "none", "lr": "x"}}], r"'lr' of method 'a': expected float, got 'x'"),
    (["methods"], ["none", {"a": {"how": "ens_moe", "zoo": "rand"}}], r"zoo of method 'a': 'rand'; did .* 'random'"),
    (["methods"], ["none", {"a": {"how": "uniform", "modules": ["x"]}}], r"module at method 'a': 'x'"),
    (["methods"], ["none", {"a": 3}], r"methods\[1\]: method 'a': expected settings"),
    (["methods"], ["none", 3], r"methods\[1\]: a method is a name, or a label with settings"),
    (["methods"], ["none", "none"], r"methods: 'none' stands there 2 times"),
    (["methods"], [], r"methods: there is nothing in the list"),
    (["methods"], ["uniform"], r"unknown reference 'none'; valid: uniform"),
    (["reference"], "nune", r"unknown reference 'nune'; did you mean 'none'"),
    (["seeds"], [0, 0], r"seeds: 0 stands there 2 times"),
    (["shots"], [2, "all"], r"shots: expected numbers from 1 on, or 'full', got 'all'"),
    (["midstream"], [], r"method 'ens_moe' needs modules: give midstream tasks, or a zoo"),
    (["zoo"], "nowhere", r"zoo: 'nowhere' does not exist or has no modules"),
]


@pytest.mark.parametrize(("where", "value", "text"), MISTAKES)
def test_mistakes_are_named_with_their_place_and_the_nearest_choice(plan, where, value, text):
    with pytest.raises(VimlightError, match=text):
        plan_of(changed(plan, where, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", r"plan\.yaml is no valid YAML"), ("- a", r"plan\.yaml: expected keys with values"), (None, "exist")],
)
def test_files_that_hold_no_plan(tmp_path, text, message):
    if text is not None:
        (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_plan(tmp_path / "plan.yaml")


def test_a_file_of_nearly_that_name_is_suggested(tmp_path):
    (tmp_path / "plan.yaml").touch()
    with pytest.raises(ConfigError, match=r"plann\.yaml' does not exist; did you mean 'plan\.yaml'"):
        read_plan(tmp_path / "plann.yaml")


def test_mistakes_name_the_file(tmp_path, plan):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**plan, "shot": 1}))
    with pytest.raises(VimlightError, match=r"my\.yaml: unknown key 'shot'; did you mean 'shots'"):
        read_plan(tmp_path / "my.yaml")


@pytest.mark.parametrize("name", list_methods())
def test_every_method_can_be_named_and_given_another_label(name):
    assert method_of(name).label == name
    assert method_of({"mine": {"how": name, "epochs": 7}}).content() == {**method_of(name).content(), "epochs": 7}


def test_a_label_that_is_a_method_needs_no_how():
    assert method_of({"ens_moe": {"top_k": 1}}).settings == {"top_k": 1}


def test_backbones_of_one_name_are_told_apart_by_their_settings(plan):
    small = {**BACKBONE, "img_size": 16}
    assert len(plan_of({**plan, "backbone": [BACKBONE, small]}).backbones) == 2
    assert list(plan_of({**plan, "backbone": "test_vit"}).backbones) == ["test_vit"]


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "configs" / "compare").glob("*.yaml")))
def test_shipped_plans_are_read(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill("zoo", tiny_backbone(), {"one": 0.1})
    found = read_plan(path)
    assert found.midstream or found.zoo
    assert found.downstream


def test_the_plan_in_the_documentation_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "recipes" / "compare.md").read_text()
    [text] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "midstream:" in block]
    (tmp_path / "plan.yaml").write_text(text)
    assert read_plan(tmp_path / "plan.yaml").methods[-1].settings == {"top_k": 1}


def test_methods_say_what_they_need_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="the method 'lora_alone' needs peft: pip install peft"):
        method_of("lora_alone")


def test_shots_of_a_task_win_over_those_of_the_plan(plan):
    found = plan_of(changed(plan, ["downstream", 0, "shots"], [3, "full"]))
    assert found.shots == (2,)
    assert found.shots_of(found.downstream[0]) == (3, "full")


def test_numbers_may_be_written_with_an_exponent_alone(tmp_path, plan):
    plan["midstream"][0]["lr"] = "LR"
    plan["methods"] = ["none", {"ens_moe": {"lr": "LR"}}]
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan).replace("LR", "2e-3"))
    read = read_plan(path)
    assert (read.midstream[0].lr, read.methods[1].lr) == (0.002, 0.002)
