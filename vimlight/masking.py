"""Keys, tokens and passwords, which stay out of what is saved, logged and printed."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MASK", "is_secret_name", "masked", "masked_words"]

MASK = "***"

_NAME = (
    r"(?:api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|private[_-]?key|secret(?:[_-]?key)?|token|passw(?:or)?d"
    r"|passphrase|pwd|credentials?|auth|authorization|signature|connection[_-]?string|storage[_-]options(?:\.\w+)?)"
)
_ENDS_SO = re.compile(rf"{_NAME}$", re.IGNORECASE)
# What file systems of remote places are opened with goes by names of their own.
_WITHIN = re.compile(r"(storage[_-]options[\"']?\s?[=:]\s*)\{[^}]*\}")
# `token=it`, `--token it`, `"token": "it"`; what is no text, such as `class_token=True`, is none.
_ASSIGNED = re.compile(
    rf"""(?ix) ( {_NAME}["']?\s?=\s?["']? | --[\w.-]*{_NAME}\s+["']? | {_NAME}["']\s*:\s*["']? | {_NAME}:\s["'] )
    (?! - | (?: true | false | none | null | [\d.]+ ) (?: ["'\s,;}})\]] | $ ) ) [^\s"'&,;}})\]]+""",
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s?#\"']+(?=@)")
_SIGNED = re.compile(r"(?<=[?&]sig=)[^&\s\"']+")
# What hubs, clouds and code forges hand out can be told by its form alone.
_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[a-z]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|sk-[\w-]{20,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[a-z]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
    r"|(?<=Bearer )\S{8,}|(?<=Basic )\S{8,}"
)
# A variable of the environment that is shorter, such as "none", is no secret that could be told from other text.
_SHORTEST = 8
# Where shells say the directory that they are in, and the one before it.
_DIRECTORIES = {"PWD", "OLDPWD"}


def is_secret_name(name: object) -> bool:
    """Tells whether what goes by a name is secret, as by `api_key`, `HF_TOKEN` or `storage_options`."""
    return isinstance(name, str) and _ENDS_SO.search(name) is not None


def masked(value: Any) -> Any:
    """Returns a value with `***` for what is secret in it.

    Secret are texts by the name that they go by, see `is_secret_name`, and all that are within; in a text the passwords
    of addresses, what is assigned to such a name, tokens of known forms, and the values of such variables of the
    environment.

    Args:
        value: A text, or lists, dictionaries and namespaces of a config; anything else is left as it is.

    Returns:
        A copy; dictionaries of any type become plain ones.
    """
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, argparse.Namespace):
        copy = type(value)()
        for name, inner in vars(value).items():
            setattr(copy, name, _named(name, inner))
        return copy
    if isinstance(value, Mapping):
        return {name: _named(name, inner) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(masked, value))
    return value


def masked_words(words: Sequence[str]) -> list[str]:
    """Returns the words of a command line with `***` for what is secret, also where name and value are two words."""
    pairs = zip(["", *words], words, strict=False)
    return [MASK if is_secret_name(name) and name.startswith("--") else masked(word) for name, word in pairs]


def _named(name: object, value: Any) -> Any:
    return _hidden(value) if is_secret_name(name) else masked(value)


def _hidden(value: Any) -> Any:
    """Returns a value with all texts masked; their places stay."""
    if isinstance(value, (str, bytes)):
        return MASK if value else value
    if isinstance(value, Mapping):
        return {name: _hidden(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(inner) for inner in value]
    return value


def _masked_text(text: str) -> str:
    for name, secret in os.environ.items():
        if len(secret) >= _SHORTEST and is_secret_name(name) and name not in _DIRECTORIES:
            text = text.replace(secret, MASK)
    for pattern in (_IN_ADDRESS, _SIGNED, _FORMS):
        text = pattern.sub(MASK, text)
    for pattern in (_WITHIN, _ASSIGNED):
        text = pattern.sub(rf"\1{MASK}", text)
    return text
