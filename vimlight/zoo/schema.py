"""The JSON schema of cards, made from the class itself."""

from __future__ import annotations

import types
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser

from vimlight.zoo.card import FORMAT_VERSION, REQUIRED, Card

__all__ = ["card_schema"]

_PLAIN = {str: "string", int: "integer", float: "number", type(None): "null"}


def card_schema() -> dict[str, Any]:
    """Returns the schema of what `Card.to_json` writes and `Card.from_json` reads, by JSON Schema 2020-12."""
    said = {each.arg_name: each.description for each in docstring_parser.parse(Card.__doc__ or "").params}
    properties = {
        name: {"description": " ".join((said[name] or "").split()), **_type(hint)}
        for name, hint in get_type_hints(Card).items()
    }
    properties["format_version"] |= {"minimum": 1, "maximum": FORMAT_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Card of a vimlight module",
        "type": "object",
        "properties": properties,
        "required": [*REQUIRED, "format_version"],
        "additionalProperties": False,
    }


def _type(hint: Any) -> dict[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is types.UnionType:
        return {"type": [_PLAIN[each] for each in inner]}
    if origin is tuple:
        return {"type": "array", "items": _type(inner[0])}
    values = {} if inner[1] is Any else {"additionalProperties": _type(inner[1])}
    return {"type": "object", **values}
