"""A trained model from the directory of its run: the config beside the checkpoint says what to build."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError, shown
from vimlight.files.absent import absence
from vimlight.files.checkpoint_facts import stated, stated_names, stated_texts
from vimlight.files.text import read_text
from vimlight.files.weight_file import first_line
from vimlight.files.yaml_text import yaml_of
from vimlight.trainable import read_checkpoint
from vimlight.training.base import SupervisedModule
from vimlight.trust import check_trusted

__all__ = ["config_file", "load_run"]

# What only training needs; a callable in it could not be built from a config of another machine.
_OF_TRAINING = ("optimizer", "lr_scheduler", "lr_interval", "warmup", "compile")


def load_run(
    checkpoint: str | Path, config: str | Path | None = None, zoo: str | Path | None = None
) -> SupervisedModule:
    """Builds the model of a run of `vimlight fit` and gives it a checkpoint's weights; no data are needed.

    Args:
        checkpoint: The checkpoint.
        config: The run's `config.yaml`; if left out, that of the directory above the checkpoint's, or beside it.
        zoo: Directory of the zoo, where it is no longer the config's.

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: If the checkpoint is damaged, was not written by vimlight, or does not fit the config.
        ConfigError: If there is no config, or it is that of no such model.
    """
    content = read_checkpoint(checkpoint)
    file = config_file(Path(checkpoint), config)
    settings = _model_settings(file)
    arguments = {key: value for key, value in settings["init_args"].items() if key not in _OF_TRAINING}
    arguments["class_names"] = stated_names(content, "class_names")
    arguments["kind"] = stated(content, "task", str)
    modules = stated_texts(content, "modules")
    if modules is not None:
        # Modules that were added to the zoo since are not even looked at.
        arguments["modules"] = list(modules)
    if zoo is not None:
        arguments["zoo"] = str(zoo)
    check_trusted(settings["class_path"], f"{str(file)!r}: model.class_path")
    model = _build(settings["class_path"], arguments)
    model.on_load_checkpoint(content)
    model.load_state_dict(content["state_dict"])
    return model.eval()


def config_file(checkpoint: Path, config: str | Path | None = None) -> Path:
    """Returns the config of a checkpoint's run.

    Args:
        checkpoint: The checkpoint.
        config: The config; if left out, `config.yaml` of the directory above the checkpoint's, or beside it.

    Raises:
        ConfigError: If there is none.
    """
    if config is not None:
        if not Path(config).is_file():
            raise ConfigError(f"config {str(config)!r} {absence(Path(config))}")
        return Path(config)
    places = [checkpoint.parent.parent / "config.yaml", checkpoint.parent / "config.yaml"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(f"there is no config.yaml in {str(places[0].parent)!r}; name the run's with --config FILE")
    return found


def _model_settings(file: Path) -> dict[str, Any]:
    content = yaml_of(read_text(file, ConfigError), repr(str(file)), ConfigError)
    settings = content.get("model") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or not isinstance(settings.get("class_path"), str):
        raise ConfigError(f"{str(file)!r} is the config of no run: it lacks model.class_path")
    settings = {"init_args": {}, **settings}
    if not isinstance(settings["init_args"], dict):
        raise ConfigError(f"{str(file)!r}: model.init_args must be a mapping, got {shown(settings['init_args'])}")
    return settings


def _build(class_path: str, arguments: dict[str, Any]) -> SupervisedModule:
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module or "vimlight"), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"the run's model {class_path!r} cannot be imported; name it with --import") from error
    if not (isinstance(kind, type) and issubclass(kind, SupervisedModule)):
        raise ConfigError(f"the run trained {name!r}; only models of images with a head can be exported")
    try:
        return kind(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"the run's config does not fit {name}: {first_line(error)}") from error
