"""What reading costs beside another build of this repository, such as one from before files were checked.

    python -m benchmarks.before 4290286

Each build writes a module, a logit cache, a prefix cache and a checkpoint, and reads them in processes of its own, in
turn with the other's, round by round. Each process reads two of each kind: with the first it imports what it needs, of
the second, which is checked on its first reading too, the processor time counts. Printed are medians of the rounds, and
median and quartiles of their ratios; `before.json` keeps every time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from rich import box
from rich.table import Table

from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.errors import ConfigError
from vimlight.files.atomic import write_whole
from vimlight.report.tables import print_whole

__all__ = ["BAR", "checked_out", "environment_of", "main"]

Rounds = Sequence[Mapping[str, Mapping[str, float]]]
BAR = 1.03  # of any read, by the build before

# Nothing in it may be newer than the oldest build that it is to run in.
_SCRIPT = """
import json, sys, time
from pathlib import Path
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from vimlight.backbone import create_backbone
from vimlight.plugins import create_plugin
from vimlight.prefix_cache.store import Store
from vimlight.transmiter import LogitCache, write_cache
from vimlight.zoo import Zoo
try:
    from vimlight.files.checkpoint_files import CheckpointFiles
except ImportError:
    CheckpointFiles = TorchCheckpointIO

what, folder, scale = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)
model = create_backbone("vit_small_patch16_224" if scale > 1 else "test_vit", pretrained=False)
rows, images, width = 1250 * scale, 32 * scale, model.model.embed_dim
tokens = torch.randn(32, 196, width, dtype=torch.float16)

def filled(place):
    column = Store(place / "prefix", 100.0).column({"of": "any"}, images, 2 * tokens[0].numel(), torch.float16)
    column.fill(lambda chunks: ((c, {"tokens": tokens[torch.arange(len(c)) % 32]}) for c in chunks), range(images))
    return column

def summed(cache, size):
    return sum(found.sum() for found in LogitCache.open(cache).batches(size))

def epoch(place):
    column = filled(place)
    for start in range(0, images, 32):
        model.model.blocks[-1](column.read(range(start, start + 32))["tokens"].float())

def write(place):
    Zoo(place / "zoo").add("module", create_plugin("convpass", model, hidden=8), card={})
    names = [f"class {number}" for number in range(1000)]
    for size in (256, 4096):
        target = place / f"cache {size}"
        write_cache(target, logits=torch.randn(rows, 1000), class_names=names, model="any", split="test")
    filled(place)
    CheckpointFiles().save_checkpoint({"state_dict": model.model.state_dict()}, place / "model.ckpt")

READS = {
    "module": lambda place: Zoo(place / "zoo").load("module", model),
    "logit cache, 256 rows at a time": lambda place: summed(place / "cache 256", 256),
    "logit cache, 4,096 rows at a time": lambda place: summed(place / "cache 4096", 4096),
    "checkpoint": lambda place: CheckpointFiles().load_checkpoint(place / "model.ckpt"),
    "prefix epoch": epoch,
}

def seconds(read, place):
    begun = time.process_time()
    read(place)
    return time.process_time() - begun

# What is imported and computed once a process is done with the first of two.
places = [folder / "one", folder / "two"]
with torch.no_grad():
    if what == "write":
        for place in places:
            write(place)
    else:
        print(json.dumps({title: [seconds(read, place) for place in places][1] for title, read in READS.items()}))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Args:
        arguments: The command line; the process's own if left out.

    Raises:
        ConfigError: If there is no such build, or one of them cannot do what is measured.
    """
    parser = Parser("python -m benchmarks.before", description=__doc__)
    parser.add_argument("commit", help="the other build")
    parser.add_argument("--rounds", type=int, default=9, help="processes of each build (default: 9)")
    parser.add_argument("--out", type=Path, help="folder for before.json")
    parser.add_argument("--scale", type=int, default=8, help="size of the caches; 1 for a tiny model (default: 8)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch, checked_out(options.commit, Path(scratch)) as other:
        builds = {"before": other, "now": Path.cwd()}
        for build, tree in builds.items():
            _run(tree, "write", Path(scratch, "files", build), options.scale)
        rounds = [
            {build: _run(tree, "read", Path(scratch, "files", build), options.scale) for build, tree in builds.items()}
            for _ in range(options.rounds)
        ]
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        content = {"bar": BAR, "ratios": {title: median(found) for title, found in _ratios(rounds).items()}}
        write_whole(options.out / "before.json", json.dumps({**content, "rounds": rounds}, indent=1), overwrite=True)
    _print(rounds)


def _ratios(rounds: Rounds) -> Mapping[str, Sequence[float]]:
    return {title: [each["now"][title] / each["before"][title] for each in rounds] for title in rounds[0]["now"]}


@contextmanager
def checked_out(commit: str, scratch: Path) -> Iterator[Path]:
    """Lends a tree of another build.

    Args:
        commit: Which build.
        scratch: Folder that the tree is made in.

    Raises:
        ConfigError: If there is no such build.
    """
    tree = scratch / "tree"
    made = subprocess.run(["git", "worktree", "add", "--detach", tree, commit], capture_output=True, text=True)
    if made.returncode:
        raise ConfigError(f"no build {commit!r}: {made.stderr.strip().splitlines()[-1]}")
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], check=True, capture_output=True)


def environment_of(*places: Path, **more: str) -> dict[str, str]:
    """Returns the environment of a process that imports from some places first.

    Args:
        *places: The places, such as the tree of a build.
        **more: Further variables.
    """
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), **more}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def _run(tree: Path, what: str, folder: Path, scale: int) -> Mapping[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, what, folder, str(scale)], cwd=folder, capture_output=True, text=True,
        env=environment_of(tree, OMP_NUM_THREADS="1"),
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"{tree.name} cannot {what}: {done.stderr.strip().splitlines()[-1]}")
    found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1]) if what == "read" else {}
    return found


def _print(rounds: Rounds) -> None:
    table = Table("first read", "before, ms", "now, ms", "ratio", "quartiles", box=box.SIMPLE_HEAD)
    for title, ratios in _ratios(rounds).items():
        before, now = (f"{1e3 * median(each[build][title] for each in rounds):.1f}" for build in ("before", "now"))
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        table.add_row(title, before, now, f"{middle:.2f}", f"{low:.2f}-{high:.2f}")
    print_whole(table)


if __name__ == "__main__":
    guarded(main)
