"""The documentation is built, with warnings as errors, and what is generated of it is complete."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

from vimlight.cli import TOOLS, TRAINING
from vimlight.data.sources import list_sources
from vimlight.shipped import config_names

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / "docs" / "hooks"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    commands = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("mkdocs").addHandler(handler)
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    commands.build(config)
    config.plugins.on_shutdown()
    logging.getLogger("mkdocs").removeHandler(handler)
    assert not said
    return folder


@pytest.mark.parametrize("page", ["README.md", *sorted(map(str, Path(ROOT, "docs").rglob("*.md")))])
def test_links_lead_to_files_of_the_repository(page):
    """So they work where the repository is read, not on the site alone."""
    file = ROOT / page
    links = re.findall(r"\]\(([^)\s#]+)", file.read_text())
    assert not [link for link in links if "://" not in link and not (file.parent / link).exists()]


@pytest.mark.slow
def test_every_page_is_built_and_in_the_navigation(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    home = (site / "index.html").read_text()
    assert not [page for page in pages if not (site / page).is_file() or f'href="{page}"' not in home]
    assert not list(site.rglob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/cli.html", [*TRAINING, *(f"vimlight {name}" for name in TOOLS), "vimlight zoo push"]),
        ("reference/configs.html", config_names()),
        ("reference/sources.html", list_sources()),
        ("reference/api/vimlight.html", ["create_backbone", "DownstreamModule", "MultiTask"]),
    ],
)
def test_references_are_complete(site, page, names):
    text = re.sub(r"<[^>]+>", "", (site / page).read_text())
    assert not [name for name in names if name not in text]


def test_the_page_of_the_command_line_needs_no_torch():
    script = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]); "
        "import of_commands, of_tables; print(of_commands.commands_page(), of_tables.sources_page())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(HOOKS)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert "| `--shard I/N` | do share I of N; shards may share the folder |" in done.stdout
    assert "| `root` | `str` | needed |" in done.stdout


def test_the_description_for_a_package_index_leads_nowhere_within_the_repository(monkeypatch):
    # The tool that builds is there while it builds, alone.
    interface = SimpleNamespace(MetadataHookInterface=object)
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    spec = spec_from_file_location("package_index", HOOKS / "package_index.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.standalone((ROOT / "README.md").read_text())
    assert "![" not in text
    assert re.findall(r"\]\((.*?)\)", text) == re.findall(r"\]\((https:.*?)\)", (ROOT / "README.md").read_text())
    assert "*Images pass through a frozen backbone." in text
