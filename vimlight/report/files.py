"""Result files: whole or absent, and never replaced unless asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vimlight import __version__
from vimlight.errors import ConfigError
from vimlight.files.atomic import refuse_existing, write_whole
from vimlight.files.json_text import check_version, json_object
from vimlight.zoo.card import library_versions

__all__ = ["read_results", "read_versions", "refuse_existing", "stamped", "versions_text", "write_whole"]

_VERSION = 1


def stamped(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns results as `results.json` has them: behind the versions of this package, the format and the libraries.

    Args:
        results: Plain values.
    """
    return {"vimlight": __version__, "format_version": _VERSION, "versions": library_versions(), **results}


def read_results(text: str | bytes, name: str) -> dict[str, Any]:
    """Reads what `stamped` has marked; the first results do not say their version.

    Args:
        text: The JSON.
        name: What messages call it.

    Raises:
        ConfigError: If it is no JSON object, or of a newer format.
    """
    content = json_object(text, name, ConfigError)
    check_version(content, _VERSION, ConfigError, what=name, unstated=1)
    return content


def versions_text() -> str:
    """Returns a run's `versions.json`: the format of all that lies beside it, and the versions of the libraries."""
    return json.dumps({"format_version": _VERSION, **library_versions()}, indent=1) + "\n"


def read_versions(text: str, name: str) -> dict[str, str]:
    """Reads what `versions_text` wrote, less the format, which the first runs do not say.

    Args:
        text: The JSON.
        name: What messages call it.

    Raises:
        ConfigError: If it is no JSON object, or of a newer format.
    """
    found = read_results(text, name)
    return {str(key): str(version) for key, version in found.items() if key != "format_version"}
