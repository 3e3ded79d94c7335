"""Adds to the site what is written elsewhere: pages of the code, and files that lie beside `docs`."""

from __future__ import annotations

from pathlib import Path

from elsewhere import linked_within, pages_from_elsewhere
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from of_commands import commands_page
from of_modules import module_pages
from of_tables import configs_page, sources_page


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds recipes that the navigation does not name, so that a new one is one new file.

    Args:
        config: The settings of the site.
    """
    folder = Path(config.docs_dir)
    [recipes] = [section["Recipes"] for section in config.nav or [] if "Recipes" in section]
    found = sorted(file.relative_to(folder).as_posix() for file in folder.glob("recipes/*.md"))
    recipes += [page for page in found if page not in recipes]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages.

    Args:
        files: What lies in `docs`.
        config: The settings of the site.
    """
    pages = {
        "reference/cli.md": commands_page(),
        "reference/configs.md": configs_page(),
        "reference/sources.md": sources_page(),
        **module_pages(),
        **pages_from_elsewhere(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lets links to files beside `docs` lead to their pages.

    Args:
        markdown: The page's text.
        page: The page.
        config: The settings of the site.
        files: What the site has.
    """
    return linked_within(page.file.src_uri, markdown)
