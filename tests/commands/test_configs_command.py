"""`vimlight configs`, and shipped configs by their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from vimlight import shipped
from vimlight.cli import main
from vimlight.errors import UnknownNameError

CONFIGS = Path(__file__).parents[2] / "configs"


def said(capsys, *words):
    capsys.readouterr()
    main(["configs", *words])
    return capsys.readouterr().out


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as leaving:
        main(list(words))
    assert leaving.value.code == 2
    return capsys.readouterr().err


def test_every_config_is_listed_with_what_it_is_for(capsys):
    header, *rows = said(capsys, "list").splitlines()
    assert header == "config\twhat"
    found = dict(row.split("\t") for row in rows)
    assert {f"{name}.yaml" for name in found} == {
        path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")
    }
    assert all(10 < len(what) < 125 for what in found.values())
    assert [each["name"] for each in json.loads(said(capsys, "list", "--json"))] == list(found)


@pytest.mark.parametrize("name", shipped.config_names())
def test_a_config_is_shown_as_it_is(name, capsys):
    text = said(capsys, "show", name)
    assert text == (CONFIGS / f"{name}.yaml").read_text()
    assert isinstance(yaml.safe_load(text), dict)


def test_copies_are_whole_and_replace_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    copied = said(capsys, "copy", "midstream/letters", "@loggers/wandb", "--to", "mine")
    assert copied == "configs copied to 'mine': 2\n"
    assert sorted(path.name for path in Path("mine").rglob("*.yaml")) == ["letters.yaml", "wandb.yaml"]
    assert "letters.yaml' exists already; name another folder with --to" in refusal(
        capsys, "configs", "copy", "midstream/letters", "--to", "mine"
    )
    scripts = [path for path in CONFIGS.glob("*/*") if path.suffix != ".yaml"]
    assert scripts
    counts = f"{len(shipped.config_names())}, and {len(scripts)} files that go with them"
    assert said(capsys, "copy") == f"configs copied to 'configs': {counts}\n"
    assert {path.relative_to(CONFIGS) for path in CONFIGS.rglob("*")} == {
        path.relative_to("configs") for path in Path("configs").rglob("*")
    }


@pytest.mark.parametrize(
    "words",
    [
        ["configs", "show", "midstream/leters"],
        ["fit", "--config", "@midstream/leters"],
        ["fit", "--config=@midstream/leters"],
        ["test", "-c", "@midstream/leters"],
        ["cache", "build", "--config", "@midstream/leters"],
        ["compare", "@midstream/leters", "--out", "x"],
    ],
)
def test_a_misspelt_name_gets_the_nearest(words, capsys):
    assert "unknown shipped config 'midstream/leters'; did you mean 'midstream/letters'" in refusal(capsys, *words)


def test_a_misspelt_command_gets_the_nearest(capsys):
    assert "unknown command of vimlight configs 'lst'; did you mean 'list'?" in refusal(capsys, "configs", "lst")


def test_a_shipped_config_is_used_by_its_name(capsys):
    # It was read: what is refused stands beside what it says.
    words = ["fit", "--config", "@midstream/letters", "--data.dataset", "digts"]
    assert "unknown data set 'digts'" in refusal(capsys, *words)
    assert shipped.resolved("mine.yaml") == "mine.yaml"
    assert Path(shipped.resolved("@midstream/letters")).samefile(CONFIGS / "midstream" / "letters.yaml")
    with pytest.raises(UnknownNameError):
        shipped.resolved("@")


def test_an_installed_package_holds_them_itself(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "vimlight"
    shutil.copytree(CONFIGS / "midstream", package / "configs" / "midstream")
    monkeypatch.setattr(shipped, "__file__", str(package / "shipped.py"))
    assert shipped.resolved("@midstream/letters") == str(package / "configs" / "midstream" / "letters.yaml")
