"""What the README says of the released checkpoint is run, on one with random weights."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from tiny_release import release, same

from vimlight.cli import main

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text().split("## Using the released ViM checkpoint")[1].split("\n## ")[0]
QUICK = "--trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1 --data.test_limit 8 --data.shots 1"


@pytest.mark.slow
def test_the_section_on_the_released_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    torch.save(release(), "pytorch_model.pt")
    commands = [line for line in SECTION.splitlines() if line.startswith("vimlight")]
    assert len(commands) == 3
    for command in commands:
        main([*shlex.split(command)[1:], *(QUICK.split() if " fit " in command else [])])
    assert not same(release(), torch.load("again.pt", weights_only=True))
    found: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1], found)
    assert found["model"].tasks == ["cls-pets", "seg-voc"]
    assert found["logits"].shape == (2, 4, 20, 20)
    assert len(found["maps"]) == 3
