"""Commands that are told to write where nothing can be written say so in a line, before the work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vimlight.cli import main

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
