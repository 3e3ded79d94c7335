"""The examples run from an empty directory, offline, in seconds, and say what their texts promise."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from vimlight.plugins import PLUGINS

FOLDER = Path(__file__).parents[2] / "examples"
SAYS = {
    "train_and_reuse": "bit for bit: True",
    "own_plugin": "beside a lora module in one pass: (2, ",
    "aggregate_zoo": "ens_moe: accuracy 0.",
    "move_from_logits": "with what the weak one learnt 0.",
    "export_and_predict": ", 10 classes",
}
# It trains on logits alone.
QUICK = {"move_from_logits"}
NOTEBOOKS = ("gates", "sites")


def test_all_are_listed_and_tested():
    assert {file.stem for file in FOLDER.glob("*.py")} == set(SAYS)
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)
    said = (FOLDER / "README.md").read_text()
    assert all(f"]({file.name})" in said for file in FOLDER.iterdir() if file.suffix in (".py", ".ipynb"))


@pytest.mark.parametrize("name", SAYS)
def test_a_script_is_short(name):
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    assert len(lines) < 60
    assert lines[0].startswith('"""')


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in SAYS]
)
def test_a_script_runs_and_says_what_it_found(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # What a script registers is taken back, and what it imports stays known.
    monkeypatch.setattr(PLUGINS, "_entries", {each: PLUGINS[each] for each in PLUGINS})
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert SAYS[name] in said
    assert 2 <= len(said.splitlines()) <= 6
    assert "nan" not in said


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_its_outputs(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert sum(len(cell["source"]) for cell in code) < 60
    assert cells[0]["cell_type"] == "markdown"


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert all(output.output_type != "error" for output in outputs)
