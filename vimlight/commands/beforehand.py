"""What is wrong with a command line that can be told before the libraries are imported, which takes seconds.

Whatever is passed over here is found later: the parsers check everything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vimlight.aggregation.registry import AGGREGATORS
from vimlight.commands.keys import CONFIG, plain_key, typed_keys
from vimlight.data.sources import SOURCES
from vimlight.errors import CheckpointError, ConfigError, VimlightError, nearest, unknown_name
from vimlight.extensions import imported
from vimlight.files.absent import absence
from vimlight.files.text import is_file
from vimlight.plugins.registry import PLUGINS
from vimlight.registry import Registry
from vimlight.tasks.registry import TASKS

__all__ = ["DATA", "MODELS", "check_caches", "check_file", "check_images", "check_training"]

MODELS = ("MidstreamModule", "DownstreamModule", "ExtractionModule", "RefinementModule", "SourceModule")
"""The names of the classes that `vimlight fit` takes as models."""
DATA = ("MidstreamDataModule", "DownstreamDataModule", "CacheDataModule", "SourceDataModule")
"""Those that it takes as data."""
# Where configs name entries, alone or among their settings.
_ENTRIES: Mapping[str, Registry[Any]] = {
    "data.dataset": SOURCES,
    "model.plugin": PLUGINS,
    "model.plugin.kind": PLUGINS,
    "model.aggregator": AGGREGATORS,
    "model.aggregator.how": AGGREGATORS,
    "model.task": TASKS,
    "model.task.kind": TASKS,
}


def check_training(words: Sequence[str]) -> None:
    """Checks the files, classes and names of a command line of `fit`, `validate`, `test` or `predict`.

    Args:
        words: The command line.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If there is no such config file or class.
        UnknownNameError: If there is no such data set, plug-in, aggregator or task.
    """
    typed = _typed(words)
    _check_class("model", typed, MODELS)
    _check_class("data", typed, DATA)
    _check_entries(typed)
    checkpoint = typed.get("ckpt_path")
    if isinstance(checkpoint, str):
        check_file("checkpoint", checkpoint, CheckpointError)


def check_images(words: Sequence[str]) -> None:
    """Checks the config files and the data set of a command line that names images but no model to train.

    Args:
        words: The command line.

    Raises:
        ConfigError: If there is no such config file.
        UnknownNameError: If there is no such data set.
    """
    _check_entries({key: value for key, value in _typed(words).items() if not key.startswith("model")})


def check_file(what: str, path: str, error: type[VimlightError] = ConfigError, pattern: str = "*") -> None:
    """Checks that a file or folder is there.

    Args:
        what: What it is, as the message says it.
        path: Its path.
        error: What to raise.
        pattern: What names of files that may be meant look like.

    Raises:
        VimlightError: `error`, if there is nothing; the text gives the nearest name.
    """
    found = Path(path).expanduser()
    if not is_file(found) and not found.is_dir():
        raise error(f"{what} {path!r} {absence(found, pattern=pattern)}")


def check_caches(paths: Sequence[str]) -> None:
    """Checks that logit caches are whole, as opening them does.

    Args:
        paths: Their directories.

    Raises:
        CacheError: If one is not.
    """
    from vimlight.transmiter.cache.logit_cache import LogitCache

    for path in paths:
        LogitCache.open(path)


def _typed(words: Sequence[str]) -> dict[str, Any]:
    """Returns what was typed or stands in a config, by its key; what comes later wins.

    Raises:
        ConfigError: If there is no such config file.
    """
    for word, following in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option in CONFIG:
            _check_config(value if equals else following)
    return {plain_key(key): value for key, value in typed_keys(words)}


def _check_config(path: str) -> None:
    # A config may also be given as YAML itself.
    if is_file(Path(path)) or set(path) & set("{}\n:") or not path:
        return
    if Path(path).is_dir():
        raise ConfigError(f"config: {path!r} is a directory, not a file")
    raise ConfigError(f"config: file {path!r} {absence(Path(path))}")


def _check_class(key: str, typed: Mapping[str, Any], names: Collection[str]) -> None:
    name = typed.get(key)
    # Names with dots are anybody's classes, and so are those of modules that were imported.
    if not isinstance(name, str) or not name.isidentifier() or name in names or imported()[0]:
        return
    close = nearest(name, names, 1)
    raise ConfigError(f"{key}: unknown class {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _check_entries(typed: Mapping[str, Any]) -> None:
    for key, registry in _ENTRIES.items():
        name = typed.get(key)
        # Classes of somebody else may mean something else by it.
        own = typed.get(key.partition(".")[0]) in (*MODELS, *DATA)
        if own and isinstance(name, str) and name not in registry:
            raise unknown_name(registry.kind, name, registry)
