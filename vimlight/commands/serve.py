"""`vimlight serve CHECKPOINT...`: several downstream tasks over one backbone, asked on a page or by JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vimlight.commands.beforehand import check_file
from vimlight.commands.options import Parser
from vimlight.errors import CheckpointError, ConfigError, printable

if TYPE_CHECKING:
    from vimlight.serving import ServedTasks

__all__ = ["main"]

_TEXT = """Answers an image for the tasks of several runs of `vimlight fit`, which share one backbone: on a page, to
which an image is dropped, and as JSON at /predict. Only this machine is answered unless --host says otherwise; nothing
of a request is written to disk."""
_NEEDED = ("starlette", "uvicorn")
_EXPORTED = (".onnx", ".pt2", ".safetensors")
_LOOPBACK = "127.0.0.1"


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight serve`, until it is interrupted or terminated.

    Args:
        arguments: The command line behind `vimlight serve`.

    Raises:
        VimlightError: If the command line, a checkpoint, its config or the zoo is not as it should be, the tasks cannot
            share a backbone, a library is missing, or the port is in use.
        SystemExit: With 0 behind `--help`.
    """
    options = _parser().parse_args(arguments)
    named = [_named(word) for word in options.checkpoints]
    for _, path in named:
        _check(path)
    _check_limits(options)
    if any(find_spec(name) is None for name in _NEEDED):
        raise ConfigError("vimlight serve needs starlette and uvicorn: pip install 'vimlight[serve]'")
    from vimlight.devices import device_of
    from vimlight.serving.server import bound

    device = device_of(options.device)
    # The port is refused before models are loaded.
    with bound(options.host, options.port) as listening:
        from vimlight.serving import Limits, ServedTasks, create_app, serve

        served = ServedTasks.load(_checkpoints(named), zoo=options.zoo, device=device)
        limits = Limits(options.max_megabytes, options.max_megapixels, options.max_waiting)
        app = create_app(served, limits, ["localhost", options.host])
        _announce(served, options.host, listening.getsockname()[1])
        serve(app, listening)


def _parser() -> Parser:
    parser = Parser("vimlight serve", description=_TEXT)
    parser.add_argument("checkpoints", nargs="+", metavar="[NAME=]CHECKPOINT", help="checkpoints of downstream runs, "
                        "config.yaml above each (default name: the data set)")  # fmt: skip
    parser.add_argument("--zoo", metavar="DIR", help="the zoo, if it is no longer where the configs say")
    parser.add_argument("--device", default="auto", help="where to compute: auto, cpu or cuda (default: auto)")
    parser.add_argument("--host", default=_LOOPBACK, help=f"address to listen at (default: {_LOOPBACK}, this machine "
                        "alone; 0.0.0.0 for everybody who reaches it)")  # fmt: skip
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000; 0 for a free one)")
    parser.add_argument("--max-megabytes", type=float, default=20.0, metavar="N", help="largest file (default: 20)")
    parser.add_argument("--max-megapixels", type=float, default=50.0, metavar="N", help="largest image (default: 50)")
    parser.add_argument("--max-waiting", type=int, default=8, metavar="N",
                        help="requests at a time, of which one is computed (default: 8)")  # fmt: skip
    return parser


def _named(word: str) -> tuple[str | None, str]:
    """Returns the name that a task is given, if any, and the path of its checkpoint."""
    name, equals, path = word.partition("=")
    return (name, path) if equals and name and not Path(word).expanduser().is_file() else (None, word)


def _check(path: str) -> None:
    if Path(path).suffix in _EXPORTED:
        raise ConfigError(
            f"{path!r} is no checkpoint: an exported file has a backbone of its own, which nothing can share; give the "
            "checkpoint that it was made from"
        )
    check_file("checkpoint", path, CheckpointError)


def _check_limits(options: argparse.Namespace) -> None:
    for name in ("max_megabytes", "max_megapixels", "max_waiting"):
        value = getattr(options, name)
        if not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be more than 0, got {value:g}")
    if not 0 <= options.port < 65536:
        raise ConfigError(f"--port must lie between 0 and 65535, got {options.port}")


def _checkpoints(named: Sequence[tuple[str | None, str]]) -> Mapping[str, Path]:
    """Returns the checkpoints by the tasks' names; of two tasks of one name the second is called by its number."""
    from vimlight.serving.tasks import name_of

    found: dict[str, Path] = {}
    for given, path in named:
        file = Path(path).expanduser()
        name = given or name_of(file)
        if given in found:
            raise ConfigError(f"two checkpoints are called {given!r}; give each a name of its own")
        alike = sum(other == name or other.startswith(f"{name} (") for other in found)
        found[f"{name} ({alike + 1})" if alike else name] = file
    return found


def _announce(served: ServedTasks, host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    tasks = ", ".join(f"{name} ({task.task.kind})" for name, task in served.tasks.items())
    print(printable(f"serving {tasks} at http://{shown}:{port}/; Ctrl-C ends it"), flush=True)
    if host not in (_LOOPBACK, "localhost", "::1"):
        print("vimlight: whoever reaches this machine may ask; there is no password", file=sys.stderr, flush=True)
