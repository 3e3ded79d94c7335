"""`vimlight report RUN_OR_DIR... --out report.html`: one self-contained page of what runs left on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vimlight.commands.options import Parser
from vimlight.errors import ConfigError
from vimlight.files.absent import absence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Runs `vimlight report`.

    Args:
        arguments: Options; see `vimlight report --help`.

    Raises:
        ConfigError: If a path holds no results, a file is damaged, or the page exists and is not to be replaced.
    """
    parser = Parser(
        "vimlight report",
        description="Write one self-contained page of runs: tables, curves, gates, confusion, what changed, cost, "
        "reliability, configs and versions.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="RUN_OR_DIR",
        help="directories of vimlight fit, test, compare or demo, files of vimlight evaluate, or what holds these",
    )  # fmt: skip
    parser.add_argument("--out", default="report.html", metavar="FILE", help="the page (default: report.html)")
    parser.add_argument("--title", default="", help="its title (default: that of the run)")
    parser.add_argument("--overwrite", action="store_true", help="replace a page that is there")
    options = parser.parse_args(arguments)
    from vimlight.pages import build_report
    from vimlight.report.files import refuse_existing

    paths = [Path(path).expanduser() for path in options.paths]
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path} {absence(path, folder=True)}")
    out = Path(options.out).expanduser()
    refuse_existing(out, options.overwrite, "--overwrite")
    page = build_report(paths, options.title)
    print(f"{page.save(out, overwrite=options.overwrite)} written")
