"""Pages that list what ships with the package: configs, and data sources with what they take."""

from __future__ import annotations

from vimlight.data.arguments import arguments_of, summary_of
from vimlight.data.sources import list_sources
from vimlight.shipped import config_names, configs_folder

__all__ = ["configs_page", "sources_page"]

_CONFIGS = """# Configs

They come with the package: `--config @NAME` uses one, `vimlight configs show NAME` prints it, `vimlight configs copy`
writes copies to change. Every one of them is run by a test.
"""
_SOURCES = """# Data sources

What `dataset` may say, and `dataset_args` hold. `vimlight data show NAME --args KEY=VALUE ...` prints the same, and
what is in a data set.
"""


def configs_page() -> str:
    """Returns the page of the configs in Markdown."""
    parts = [_CONFIGS]
    for name in config_names():
        text = (configs_folder() / f"{name}.yaml").read_text()
        parts.append(f"## {name}\n\n```yaml\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def sources_page() -> str:
    """Returns the page of the data sources in Markdown."""
    parts = [_SOURCES]
    for name in list_sources():
        rows = [
            f"| `{each.name}` | `{_cell(each.type)}` | {f'`{_cell(each.default)}`' if each.default else 'needed'} "
            f"| {_cell(each.text)} |"
            for each in arguments_of(name)
        ]
        table = ["| argument | type | default | what |", "| --- | --- | --- | --- |", *rows]
        parts.append(f"## {name}\n\n{summary_of(name)}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
