"""The page on the released checkpoint is run, on one with random weights."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from tiny_release import release, same

from vimlight.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recipes/released-checkpoint.md").read_text()
QUICK = "--trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1 --data.test_limit 8 --data.shots 1"


@pytest.mark.slow
def test_the_page_on_the_released_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(release(), "pytorch_model.pt")
    commands = [line for line in PAGE.splitlines() if line.startswith("vimlight")]
    assert len(commands) == 3
    for command in commands:
        main([*shlex.split(command)[1:], *(QUICK.split() if " fit " in command else [])])
    assert not same(release(), torch.load("again.pt", weights_only=True))
    found: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], found)
    assert found["model"].tasks == ["cls-pets", "seg-voc"]
    assert found["logits"].shape == (2, 4, 20, 20)
    assert len(found["maps"]) == 3
