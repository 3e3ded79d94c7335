"""Configs that come with the package: `@midstream/letters` names one, wherever the package lies."""

from __future__ import annotations

from pathlib import Path

from vimlight.errors import unknown_name

__all__ = ["MARK", "config_names", "configs_folder", "resolved"]

MARK = "@"


def configs_folder() -> Path:
    """Returns the folder of the configs: within an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return next((folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()), package)


def config_names() -> list[str]:
    """Lists the configs, such as `"midstream/letters"`."""
    folder = configs_folder()
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.glob("*/*.yaml"))


def resolved(path: str) -> str:
    """Returns the path of a config.

    Args:
        path: A path, which is returned as it is, or the name of a shipped config with `@` in front.

    Raises:
        UnknownNameError: If no config of that name is shipped; the text gives the nearest names.
    """
    if not path.startswith(MARK):
        return path
    name = path.removeprefix(MARK).removesuffix(".yaml")
    if name not in config_names():
        raise unknown_name("shipped config", name, config_names())
    return str(configs_folder() / f"{name}.yaml")
