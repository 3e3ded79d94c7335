"""What importing the package costs, and that its names are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vimlight

HEAVY = ("torch", "lightning", "timm", "open_clip", "torchvision", "torchmetrics", "matplotlib", "pandas", "sklearn")
PROBE = f"""
import sys
{{statement}}
print(",".join(name for name in {HEAVY!r} if name in sys.modules))
"""


@pytest.mark.parametrize(
    "statement",
    ["import vimlight", "from vimlight.cli import main; main(['--help'])", "from vimlight.cli import main; main([])"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement):
    command = [sys.executable, "-c", PROBE.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_help_lists_every_command():
    from vimlight.cli import TOOLS, TRAINING

    done = subprocess.run([sys.executable, "-m", "vimlight", "--help"], capture_output=True, text=True, check=True)
    for command in [*TRAINING, *TOOLS]:
        assert f"  {command} " in done.stdout
    version = subprocess.run(
        [sys.executable, "-m", "vimlight", "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout == f"vimlight {vimlight.__version__}\n"


@pytest.mark.parametrize("name", vimlight.__all__)
def test_every_public_name_is_there(name):
    assert getattr(vimlight, name) is not None
    assert name in dir(vimlight)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'agregate'"):
        _ = vimlight.agregate
