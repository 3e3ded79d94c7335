"""Devices by the names that commands take."""

from __future__ import annotations

from os import environ

import torch

from vimlight.errors import ConfigError

__all__ = ["device_of"]


def device_of(name: str) -> torch.device:
    """Returns a device by name.

    Args:
        name: `"auto"` for this process's GPU, or the CPU where there is none; else a name of torch.

    Raises:
        ConfigError: If there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not to be had here; choose auto, cpu or cuda") from error
    return device
