"""`python -m benchmarks.stranger`: from `pip install` in an empty environment to an own module in a shared zoo.

It builds the wheel, makes a virtual environment, does there what somebody does who has never seen the package, and
writes each command with what it printed and how long it took to `docs/stranger.md`. It ends at a command that fails,
and complains at the end of those that warned, or printed a line which does not fit 80 columns.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.errors import ConfigError
from vimlight.files.atomic import write_whole

__all__ = ["STEPS", "Done", "Step", "main", "page_of"]

ROOT = Path(__file__).parents[1]
PORT = 8123
# What makes trainings short enough to be watched.
LITTLE = "--data.dataset_args.train 1000 --trainer.max_epochs 1"
_COLUMNS = 80
_WARNS = re.compile(r"warning|deprecat|traceback", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """A command, and why.

    Attributes:
        title: What it does, as a heading.
        text: What is worth knowing.
        command: The command.
        lines: How many lines of its output are shown at most, from both ends.
        serves: Whether it goes on until all is done, and prints nothing that matters.
    """

    title: str
    text: str
    command: str
    lines: int = 12
    serves: bool = False


STEPS = (
    Step("Install", "Into an empty virtual environment.", "pip install --quiet vimlight"),
    Step("What comes along", "Configs go by their names.", "vimlight configs list", 8),
    Step(
        "A first module",
        "On the backbone that comes with the package, from drawn images: one epoch of an eighth of them.",
        f"vimlight fit --config @midstream/letters \\\n    {LITTLE}",
    ),
    Step("It is in the zoo", "One file, with its card.", "vimlight zoo list"),
    Step("It is whole", "", "vimlight zoo verify"),
    Step(
        "A module type of one's own",
        "A file that works, to be changed, and its test, as a package.",
        "vimlight new plugin my_plugin --to my-extensions",
        14,
    ),
    Step("Install it", "From then on it goes by its name.", "pip install --quiet -e 'my-extensions[dev]'"),
    Step("Test it", "", "pytest -q my-extensions", 4),
    Step(
        "A module of that type",
        "",
        f"vimlight fit --config @midstream/letters \\\n    {LITTLE} \\\n"
        "    --data.dataset_args.task shapes --model.name my-shapes \\\n"
        "    --model.plugin '{kind: my_plugin, hidden: 16}'",
    ),
    Step("Share it", "A directory; object stores and the hub have addresses.", "vimlight zoo push shared"),
    Step(
        "On the web",
        "Any server of plain files will do.",
        f"python -m http.server {PORT} --bind 127.0.0.1 --directory shared",
        serves=True,
    ),
    Step(
        "Somebody else pulls it",
        "Hashes, cards and types are checked before anything is in the zoo.",
        f"vimlight zoo pull http://127.0.0.1:{PORT} --zoo theirs",
    ),
    Step(
        "And uses it",
        "Five labelled images of each handwritten digit, and the zoo that was pulled.",
        "vimlight fit --config @downstream/digits --model.zoo theirs",
    ),
    Step(
        "Test images, once",
        "",
        "vimlight test --config @downstream/digits --model.zoo theirs \\\n"
        "    --ckpt_path runs/fit/version_2/checkpoints/last.ckpt",
    ),
    Step("One page of all runs", "", "vimlight report runs"),
)


@dataclass(frozen=True)
class Done:
    """A step that was done.

    Attributes:
        step: The step.
        said: What it printed.
        seconds: How long it took.
    """

    step: Step
    said: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Goes the path and writes the page.

    Args:
        arguments: Options; see `--help`.

    Raises:
        ConfigError: If a command fails or says what it should not; the text has all that it said.
    """
    parser = Parser("python -m benchmarks.stranger", description=__doc__)
    parser.add_argument("--out", default="docs/stranger.md", help="the page (default: docs/stranger.md)")
    parser.add_argument("--venv", help="an environment with vimlight to use, in place of installing into an empty one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        done = list(_walk(Path(folder), options.venv))
    print(f"{write_whole(options.out, page_of(done), overwrite=True)} written")
    if rough := [each.step.command for each in done if _is_rough(each)]:
        raise ConfigError("these warn, or print lines of more than 80 columns:\n" + "\n".join(rough))


def page_of(done: Sequence[Done]) -> str:
    """Returns the page.

    Args:
        done: The steps.
    """
    total = _duration(sum(each.seconds for each in done))
    return "\n".join(
        [
            "# From an empty environment to a module of one's own in a shared zoo\n",
            "Every command below was run in this order and printed what stands below it; `...` stands for lines that"
            f" were left out. All of it took {total} on {os.cpu_count()} cores without an accelerator (Python"
            f" {platform.python_version()}). `python -m benchmarks.stranger` does it again and writes this page.\n",
            *map(_section, done),
        ]
    )


def _section(done: Done) -> str:
    step = done.step
    heading = [f"## {step.title}\n", *([f"{step.text}\n"] if step.text else [])]
    output = _shortened(done.said.rstrip().splitlines(), step.lines)
    shown = ["```console", f"$ {step.command}{' &' if step.serves else ''}", *output, "```", ""]
    return "\n".join([*heading, *shown, *([] if step.serves else [f"*{_duration(done.seconds)}*\n"])])


def _shortened(lines: Sequence[str], most: int) -> list[str]:
    """Leaves out lines in the middle."""
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most // 2], "...", *lines[len(lines) - (most - most // 2) :]]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _walk(folder: Path, venv: str | None) -> Iterator[Done]:
    """Does one step after the other."""
    home, place = folder / "home", Path(venv).absolute() if venv else folder / "venv"
    home.mkdir()
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    _run(wheel, folder, os.environ)
    # As if it were on the index already.
    wheel_file = next(folder.glob("*.whl"))
    again = f"pip install --quiet --force-reinstall --no-deps {wheel_file} && " if venv else ""
    really = {STEPS[0].command: f"{again}pip install --quiet {wheel_file}"}
    if venv is None:
        _run([sys.executable, "-m", "venv", str(place)], folder, os.environ)
    environment = _environment(place)
    _run(["pip", "uninstall", "-q", "-y", "my-extensions"], home, environment)
    with ExitStack() as servers:
        for step in STEPS:
            print(f"$ {step.command}", flush=True)
            if step.serves:
                servers.enter_context(_served(step.command, home, environment))
                yield Done(step, "", 0.0)
                continue
            before = time.perf_counter()
            said = _run(["bash", "-c", really.get(step.command, step.command)], home, environment)
            seconds = time.perf_counter() - before
            print(f"{said}({seconds:.1f} s)", flush=True)
            if venv and step is STEPS[0]:
                step = replace(step, text="Into a virtual environment that had what it depends on already.")
            yield Done(step, said.replace(str(home), "~").replace(str(folder), ""), seconds)


def _environment(venv: Path) -> dict[str, str]:
    """Returns the environment of somebody who has activated a virtual environment, and nothing else."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    path = os.pathsep.join([str(venv / "bin"), os.environ["PATH"]])
    # pip warns of what is particular to this machine.
    return {**plain, "PATH": path, "VIRTUAL_ENV": str(venv), "COLUMNS": str(_COLUMNS), "PIP_QUIET": "2"}


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Runs a command and returns all that it printed."""
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"{command[-1]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _is_rough(done: Done) -> bool:
    """Tells whether a command of ours said what none should; tables that are cut by tabs may be of any width."""
    wide = [line for line in done.said.splitlines() if len(line) > _COLUMNS and "\t" not in line]
    return done.step.command.startswith("vimlight") and bool(wide or _WARNS.search(done.said))


@contextmanager
def _served(command: str, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Keeps a server running."""
    server = subprocess.Popen(command.split(), cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    guarded(main)
