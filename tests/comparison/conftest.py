"""Jobs run in the process of the tests, unless a test starts the command as a process of its own."""

from __future__ import annotations

import pytest
import timm
from tiny_plans import here


@pytest.fixture
def in_process(monkeypatch):
    """Hands jobs to this process, and leaves it as it was."""
    monkeypatch.setattr("vimlight.comparison.executors.open_executor", here)
    monkeypatch.setattr("vimlight.commands.compare.prepare_workers", lambda modules: None)
    fused = timm.layers.use_fused_attn()
    yield
    timm.layers.set_fused_attn(bool(fused))
