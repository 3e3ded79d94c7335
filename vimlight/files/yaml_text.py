"""YAML that others wrote, read with suspicion."""

from __future__ import annotations

from typing import Any

from vimlight.errors import VimlightError

__all__ = ["yaml_of"]


def yaml_of(text: str, what: str, error: type[VimlightError]) -> Any:
    """Returns what a YAML text says, numbers and truth values as in configs of `vimlight fit`.

    Args:
        text: The text.
        what: What it is, as messages say it, such as `"plan.yaml"`.
        error: What to raise.

    Raises:
        VimlightError: `error`, if it is no YAML, or nested deeper than anything that is meant to be read.
    """
    import yaml
    from jsonargparse import get_loader

    try:
        return get_loader("yaml")(text)
    except RecursionError as deep:
        raise error(f"{what} is no valid YAML: it is nested too deeply") from deep
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as reason:
        # All but the first are of tags such as !!int in front of what is none.
        raise error(f"{what} is no valid YAML: {' '.join(str(reason).split())[:200]}") from reason
