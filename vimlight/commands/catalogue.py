"""Which keys there are: of trainings, and of data wherever they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Trainer, callbacks, loggers
from torch import optim
from torch.optim import lr_scheduler

from vimlight.aggregation import AGGREGATORS
from vimlight.commands.keys import Keys, Owners, arguments_of
from vimlight.data import SOURCES
from vimlight.plugins import PLUGINS, create_plugin
from vimlight.tasks import TASKS

__all__ = ["training_keys", "with_data"]

_TOP = ("model", "data", "trainer", "predictions", "report", "waiting", "ckpt_path", "seed_everything", "config")


def training_keys(models: tuple[type, ...], data: tuple[type, ...], beside: Mapping[str, type]) -> Keys:
    """Returns the keys of `fit` and its like.

    Args:
        models: The classes of models.
        data: The classes of data modules.
        beside: What stands beside model, data and trainer, by its key.
    """
    checked = {
        "": {"": _TOP},
        "trainer": arguments_of(Trainer),
        "model.init_args": arguments_of(*models),
        "model.init_args.optimizer.init_args": arguments_of(*_classes(optim, optim.Optimizer)),
        "model.init_args.lr_scheduler.init_args": arguments_of(*_classes(lr_scheduler, lr_scheduler.LRScheduler)),
        "trainer.callbacks.init_args": arguments_of(*(getattr(callbacks, name) for name in callbacks.__all__)),
        **{key: arguments_of(kind) for key, kind in beside.items()},
    }
    passed_on = {
        # Some of them take whatever their library takes.
        "trainer.logger.init_args": arguments_of(*(getattr(loggers, name) for name in loggers.__all__)),
        "model.init_args.plugin": _entries(PLUGINS, "kind", *arguments_of(create_plugin)["create_plugin"]),
        "model.init_args.aggregator": _entries(AGGREGATORS, "how"),
        "model.init_args.task": _entries(TASKS, "kind"),
    }
    return with_data(Keys(checked, passed_on), data)


def with_data(keys: Keys, data: tuple[type, ...]) -> Keys:
    """Adds the keys of data modules and data sources.

    Args:
        keys: Other keys.
        data: The classes of data modules.
    """
    return Keys(
        {**keys.checked, "data.init_args": arguments_of(*data)},
        {**keys.passed_on, "data.init_args.dataset_args": _entries(SOURCES, "classes")},
    )


def _entries(registry: Mapping[str, Callable[..., Any]], *more: str) -> Owners:
    return {name: [*more, *arguments_of(entry)[entry.__name__]] for name, entry in registry.items()}


def _classes(module: Any, base: type) -> list[type]:
    return [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, base)]
