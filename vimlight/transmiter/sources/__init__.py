"""Ways of fine-tuning a weak image-text model on a few labelled images: each file of this package registers one.

Most of them work on cached features and never touch an image; a new one is one new file here, or a class registered
from anywhere:

```python
@TUNINGS.register("shift")
class Shift(Tuning):
    def __init__(self, start):
        super().__init__(start)
        self.learned = nn.Linear(1, len(start.head))

    def forward(self, features):
        return self.head_logits(features) + self.learned.bias

    def rows(self, features):
        return self(features)
```
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from vimlight.errors import ConfigError, unknown_name
from vimlight.registry import Registry
from vimlight.transmiter.sources.base import Start, Tuning

__all__ = ["TUNINGS", "Start", "Tuning", "check_tuning", "list_tunings"]

TUNINGS: Registry[type[Tuning]] = Registry("way of fine-tuning", "vimlight.transmiter.sources", "TUNINGS")


def list_tunings() -> list[str]:
    """Returns the names of all ways of fine-tuning."""
    return list(TUNINGS)


def check_tuning(method: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Reads which way of fine-tuning is meant, before there is anything to build it from.

    Args:
        method: Its name, or its name as `name` together with its settings.

    Returns:
        The name and the settings.

    Raises:
        UnknownNameError: If there is no such way or setting.
        ConfigError: If a mapping has no `name`, or a setting is of the wrong type.
    """
    settings = {"name": method} if isinstance(method, str) else dict(method)
    if "name" not in settings:
        raise ConfigError(f"method: {settings} lacks 'name', one of {', '.join(TUNINGS)}")
    name = settings.pop("name")
    hints = inspect.signature(TUNINGS[name], eval_str=True).parameters
    known = [key for key in hints if key != "start"]
    for key, value in settings.items():
        if key not in known:
            raise unknown_name(f"setting of method {name!r}", key, known)
        wanted = hints[key].annotation
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool):
            kind = getattr(wanted, "__name__", str(wanted))
            raise ConfigError(f"{key!r} of method {name!r}: expected {kind}, got {value!r}")
    return name, settings
