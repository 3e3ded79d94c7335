"""Pages of the public Python names, whose docstrings mkdocstrings reads without importing anything."""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["module_pages"]

_ROOT = Path(__file__).parents[2]
_ROOMS = {
    "backbone": "Backbone",
    "plugins": "Plug-ins",
    "zoo": "Zoo",
    "aggregation": "Aggregation",
    "tasks": "Tasks",
    "data": "Data",
    "transmiter": "TransMiter",
    "errors": "Errors",
}
# Without a list of public names in the package itself.
_MODELS = ["training.midstream.MidstreamModule", "training.downstream.DownstreamModule"]


def module_pages() -> dict[str, str]:
    """Returns the pages by their paths in the site: one for each room, with all its public names."""
    pages = {"": ("vimlight", public_names("")), "training": ("Training", _MODELS)}
    pages |= {room: (title, public_names(room)) for room, title in _ROOMS.items()}
    return {f"reference/api/{room or 'vimlight'}.md": _page(room, *page) for room, page in pages.items()}


def public_names(room: str) -> list[str]:
    """Returns the paths below `vimlight` of what a package or module lists in `__all__`, without values."""
    folder = _ROOT / "vimlight" / room
    tree = ast.parse((folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")).read_text())
    [names] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets)
    ]
    return [f"{room}.{name}".lstrip(".") for name in names if not name.isupper() and not name.startswith("_")]


def _page(room: str, title: str, names: list[str]) -> str:
    opening = f"# {title}\n\n`{'.'.join(filter(None, ('vimlight', room)))}`\n\n"
    if not room:
        # What is shown below its own room is only named here.
        return opening + "The names that `import vimlight as vl` gives.\n\n" + "\n".join(_entry(name) for name in names)
    return opening + "\n".join(_entry(name) for name in names)


def _entry(name: str) -> str:
    return f"::: vimlight.{name}\n"
