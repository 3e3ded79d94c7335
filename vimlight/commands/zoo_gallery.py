"""`vimlight zoo gallery`: a site of a zoo, one page that needs no server but one of files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

__all__ = ["add_command"]

_PAGE = "index.html"


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command.

    Args:
        command: Adds a command by its name, what runs it and what it does; returns its parser.
    """
    gallery = command("gallery", _gallery, "write a site of the zoo: a card for each module, to search and to sort")
    gallery.add_argument("--out", metavar="DIR", required=True, help="directory of the site; index.html goes there")
    gallery.add_argument("--title", default="", help="its title (default: the zoo's name)")
    gallery.add_argument("--url", default="", help="where others pull modules from, as hf://OWNER/NAME")
    gallery.add_argument("--overwrite", action="store_true", help="replace a page that is there")


def _gallery(options: argparse.Namespace) -> None:
    from vimlight.pages.gallery import build_gallery
    from vimlight.report.files import refuse_existing
    from vimlight.zoo import Zoo

    file = Path(options.out).expanduser() / _PAGE
    refuse_existing(file, options.overwrite, "--overwrite")
    zoo = Zoo(options.zoo)
    print(f"{build_gallery(zoo, options.title, options.url).save(file, overwrite=options.overwrite)} written")
