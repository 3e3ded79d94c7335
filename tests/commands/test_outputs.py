"""Commands that are told to write where nothing can be written say so in a line, before the work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vimlight.cli import main
from vimlight.commands.output import print_text

COMMANDS = [
    "compare plan.yaml --out", "configs copy --to", "data show digits --sheet", "demo --out", "new plugin own --to",
]  # fmt: skip
PLAN = {
    "backbone": "vit_tiny_patch16_224", "midstream": [{"name": "mid", "dataset": "digits", "epochs": 1}],
    "downstream": [{"name": "down", "dataset": "digits"}], "methods": ["none"], "shots": [1], "seeds": [0],
    "reference": "none",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_below_a_file_is_refused(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("plan.yaml").write_text(yaml.safe_dump(PLAN))
    with pytest.raises(SystemExit) as leaving:
        main([*command.split(), "file/x"])
    assert leaving.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("vimlight: nothing can be written to 'file")
    assert said.endswith("file' is a file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "plan.yaml"]


@pytest.mark.parametrize("terminal", [True, False])
def test_sentences_are_broken_between_words_on_a_terminal_alone(monkeypatch, capsys, terminal):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    text = "weights: cosine 1.0000 over 18 tensors of the same name, type and shape"
    print_text(text)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines) == text
    assert len(lines) == (3 if terminal else 1)
