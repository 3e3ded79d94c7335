"""`vimlight data`, run in this process as the command line runs it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from functools import partial

import pytest
from PIL import Image
from tiny_sources import arguments_of

from vimlight.cli import main
from vimlight.data import SOURCES, list_sources, load_source
from vimlight.data.arguments import arguments_of as described_arguments
from vimlight.data.arguments import summary_of
from vimlight.data.overview import pictures_of


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Returns a function that runs a command in an empty directory and returns what it prints."""
    (tmp_path / "here").mkdir()
    # Drawing them takes longer than all else.
    monkeypatch.setattr("vimlight.data.overview.pictures_of", partial(pictures_of, count=3))
    monkeypatch.chdir(tmp_path / "here")

    def command(*words):
        capsys.readouterr()
        main(["data", *map(str, words)])
        return capsys.readouterr().out

    return command


def refusal(run, capsys, *words):
    with pytest.raises(SystemExit) as leaving:
        run(*words)
    assert leaving.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vimlight: ")]
    return line.removeprefix("vimlight: ")


def test_list_names_every_source_and_what_it_needs(run):
    header, *rows = run("list").splitlines()
    assert header.split("\t") == ["source", "needs", "what"]
    assert [row.split("\t")[0] for row in rows] == list_sources()
    assert "manifest\tpath\tOpens a table with one image per row." in rows
    assert [entry["name"] for entry in json.loads(run("list", "--json"))] == list_sources()


@pytest.mark.parametrize("name", list_sources())
def test_every_source_and_argument_is_described(name):
    assert summary_of(name).endswith(".")
    described = described_arguments(name)
    signature = inspect.signature(SOURCES[name]).parameters
    assert [each.name for each in described if each.name in signature] == list(signature)
    assert "classes" in [each.name for each in described]
    for each in described:
        assert each.text, f"{name}: the docstring says nothing of {each.name}"
        assert "typing" not in each.type
        assert each.required == (each.name in signature and signature[each.name].default is inspect.Parameter.empty)


@pytest.mark.parametrize("name", list_sources())
def test_every_source_shows_what_is_in_it(name, flowers, run):
    arguments = arguments_of(name, flowers)
    words = ["--args", json.dumps(arguments)] if arguments else []
    found = json.loads(run("show", name, *words, "--json"))
    source = load_source(name, arguments)
    assert found["kind"] == source.kind
    assert found["classes"] == list(source.class_names)
    assert set(found["parts"]) == set(source.tables)
    for split, part in found["parts"].items():
        assert part["images"] == len(source.tables[split])
        assert part["counts"] is None or len(part["counts"]) == len(source.class_names)
    with Image.open(found["sheet"]) as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 100


def test_show_counts_classes_and_sizes(run, flowers):
    said = run("show", "image_folder", "--args", f"root={flowers}", "--sheet", "here.png")
    assert "root\tstr\t(needed)\tThe folder." in said
    assert "flowers: classification, 3 classes" in said
    assert "train\t21\t12 x 20\t15 x 20\t19 x 20" in said
    assert "class\ttrain\naster\t6\nrose\t7\ntulip\t8\n" in said
    assert said.endswith("contact sheet: here.png\n")


def test_masks_are_counted_as_far_as_they_are_looked_at(run, flowers, monkeypatch):
    monkeypatch.setattr("vimlight.data.overview._LOOKED_AT", 2)
    said = run("show", "mask_folder", "--args", json.dumps(arguments_of("mask_folder", flowers)))
    assert "images of each class among 2 of 3 of train:\nclass\ttrain\nground\t2\nline\t2\n" in said


def test_pictures_are_of_one_class_after_the_other():
    shown = pictures_of(load_source("digits"), count=20)
    assert [picture.text for picture in shown] == [str(digit) for digit in range(10) for _ in range(2)]
    some = pictures_of(load_source("digits"), count=4)
    assert [picture.text for picture in some] == ["0", "3", "6", "9"]


def test_numbers_have_no_counts(run, flowers):
    (flowers / "all.csv").write_text("path,height\naster/0.png,1.5\nrose/0.png,2\n")
    said = run("show", "manifest", "--args", f"path={flowers / 'all.csv'}", "number_columns=[height]")
    assert "all: regression, 1 numbers" in said
    assert "\nheight\n" in said


def test_show_without_arguments_says_what_is_needed(run):
    said = run("show", "scenes")
    assert said.endswith("what is in a data set: vimlight data show scenes --args task=...\n")
    assert "difficulty\tfloat | None\tNone\tFrom 0 to 1; by default the task's own." in said
    assert "parts" not in json.loads(run("show", "scenes", "--json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lst"], "unknown command of vimlight data 'lst'; did you mean 'list'?"),
        (["show", "nope"], "unknown data set 'nope'; valid: coco_detection, "),
        (["show", "digist"], "unknown data set 'digist'; did you mean 'digits'?"),
        (["show", "digits", "--args", "clases=[1]"], "unknown argument of data set 'digits': 'clases'; did you mean "),
        (["show", "digits", "--args", "classes"], "--args takes key=value, or a mapping such as '{key: value}'; got "),
        (["show", "digits", "--args", "classes=[1"], "--args 'classes=[1' is no valid YAML: while parsing a flow"),
        (["show", "image_folder", "--args", "root=3"], "data set 'image_folder': "),
        (["show", "image_folder", "--args", "root=nowhere"], "folder nowhere does not exist"),
        (["show", "image_folder", "--args", "classes=[a]"], "data set 'image_folder' needs the argument 'root'"),
        (["show"], "the following arguments are required: NAME; see vimlight data show --help"),
    ],
)
def test_mistakes(run, capsys, words, message):
    assert refusal(run, capsys, *words).startswith(message)


@pytest.mark.slow
def test_listing_imports_no_framework(tmp_path):
    code = (
        "import sys; from vimlight.cli import main; main(['data', 'list'])\n"
        "sys.exit(' '.join({'lightning', 'torchmetrics', 'torchvision', 'timm', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert not done.stderr.strip()
    assert "manifest" in done.stdout
