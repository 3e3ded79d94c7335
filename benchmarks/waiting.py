"""What every command waits for: its processor time beside that of importing the libraries.

    python -m benchmarks.waiting --out waiting

Each command is a process of its own, in turn with `python -c "import torch, lightning, timm, jsonargparse"`, round by
round; what counts are the seconds of processor time of the child, user and system, the least of the rounds. Bars: 0.10
of it where no model is needed, 1.10 for help pages and for the report of a wrong key. `waiting.json` keeps all of it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich import box
from rich.table import Table

from vimlight.backbone import create_backbone
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.plugins import create_plugin
from vimlight.report.tables import print_whole
from vimlight.transmiter import write_cache
from vimlight.zoo import Zoo

__all__ = ["COMMANDS", "main"]

REFERENCE = "import torch, lightning, timm, jsonargparse"
NO_MODEL, LIBRARIES = 0.10, 1.10
COMMANDS = {
    **dict.fromkeys(
        [
            "--version", "--help", "zoo list", "zoo show letters", "zoo verify", "data list", "data show manifest",
            "configs list", "configs show midstream/letters", "cache info cache", "cache verify cache",
            "evaluate --help", "transfer --help", "compare --help", "fit --config nothing.yaml",
            "fit --config @midstream/leters",
            "fit --config @midstream/letters --data.dataset digts", "evaluate --protocol few_shot --target nothing",
        ],
        NO_MODEL,
    ),
    **dict.fromkeys(["fit --help", "fit --config @midstream/letters --model.nme x"], LIBRARIES),
}  # fmt: skip


class Waited(NamedTuple):
    """What a command costs.

    Attributes:
        command: The command.
        seconds: Processor time of its process.
        ratio: By that of the imports.
        bar: What the ratio should not exceed.
    """

    command: str
    seconds: float
    ratio: float
    bar: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes.

    Args:
        arguments: The command line; the process's own if left out.
    """
    parser = Parser("python -m benchmarks.waiting", description=__doc__)
    parser.add_argument("--out", metavar="DIR", default="waiting", help="where waiting.json is written")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the least counts (default: 3)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        _furnish(Path(folder))
        reference, found = _measured(Path(folder), options.rounds)
    _print(reference, found)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    content = {"reference": REFERENCE, "seconds": reference, "commands": [each._asdict() for each in found]}
    (out / "waiting.json").write_text(json.dumps(content, indent=1) + "\n")


def _furnish(folder: Path) -> None:
    """Writes a zoo of twelve modules and a cache, for the commands to look into."""
    backbone = create_backbone("vit_tiny_patch16_224", img_size=64)
    for name in ("letters", *(f"module-{number}" for number in range(11))):
        Zoo(folder / "zoo").add(name, create_plugin("convpass", backbone, hidden=8), card={"task": "classification"})
    logits, labels = torch.randn(1000, 20), torch.arange(1000) % 10
    names = [f"class {number}" for number in range(20)]
    write_cache(
        folder / "cache", logits=logits, labels=labels, class_names=names[:10], aux_names=names[10:], split="test",
        model="m",
    )  # fmt: skip


def _measured(folder: Path, rounds: int) -> tuple[float, list[Waited]]:
    lines = {"": ["-c", REFERENCE], **{line: ["-m", "vimlight", *line.split()] for line in COMMANDS}}
    # The first round is for what is compiled and read from disk once.
    times = [{line: _seconds(words, folder) for line, words in lines.items()} for _ in range(rounds + 1)][1:]
    least = {line: min(each[line] for each in times) for line in lines}
    reference = least.pop("")
    return reference, [Waited(line, took, took / reference, COMMANDS[line]) for line, took in least.items()]


def _seconds(words: Sequence[str], folder: Path) -> float:
    # Python may be told not to keep what it compiles, which would be measured instead.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), environment.get("PYTHONPATH")]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _print(reference: float, found: Sequence[Waited]) -> None:
    table = Table("vimlight", "CPU s", "ratio", "at most", "", box=box.SIMPLE)
    for row in _rows(found):
        table.add_row(*row)
    print_whole(table)
    print(f'python -c "{REFERENCE}": {reference:.2f} s of processor time')


def _rows(found: Sequence[Waited]) -> Iterator[tuple[str, ...]]:
    for each in found:
        kept = "kept" if each.ratio <= each.bar else "missed"
        yield each.command, f"{each.seconds:.2f}", f"{each.ratio:.3f}", f"{each.bar:.2f}", kept


if __name__ == "__main__":
    guarded(main)
