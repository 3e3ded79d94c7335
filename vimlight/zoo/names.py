"""What modules and their files may be called."""

from __future__ import annotations

import re

from vimlight.errors import ZooError, shown

__all__ = ["HEAD_SUFFIX", "SIGNATURE_SUFFIX", "SUFFIX", "check_name"]

SUFFIX = ".safetensors"
# What the names of files end in that hold a head alone, as earlier versions wrote them.
HEAD_SUFFIX = ".head"
# In place of `SUFFIX`, for the signature of a module.
SIGNATURE_SUFFIX = ".sig"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def check_name(name: str) -> None:
    """Checks that a module may have a name.

    Args:
        name: The name.

    Raises:
        ZooError: If it may not.
    """
    if not _NAME.fullmatch(name) or name.endswith((HEAD_SUFFIX, SUFFIX)):
        raise ZooError(
            f"{shown(name)} cannot name a module: up to 100 lower-case letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit and not ending in '.head' or '.safetensors'"
        )
