"""The published schema says of every field what the reader of cards takes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from vimlight.errors import ZooError
from vimlight.zoo import FORMAT_VERSION, Card
from vimlight.zoo.schema import card_schema

SCHEMA = card_schema()
SAMPLES = {"string": "a", "integer": 2, "number": 0.5, "null": None, "array": ["a"], "object": {}}
FIELDS = [field.name for field in dataclasses.fields(Card)]


def fits(value, schema):
    """Tells whether a value is as a schema says, as far as those of cards go."""
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return any(type(value) is type(SAMPLES[kind]) for kind in named)


def test_every_field_is_in_it_with_its_meaning():
    assert list(SCHEMA["properties"]) == FIELDS
    assert all(each["description"].endswith(".") for each in SCHEMA["properties"].values())
    assert SCHEMA["properties"]["format_version"]["maximum"] == FORMAT_VERSION
    assert SCHEMA["properties"]["metrics"]["additionalProperties"]["additionalProperties"] == {"type": "number"}


@pytest.mark.parametrize("name", FIELDS)
def test_the_reader_takes_what_the_schema_takes(zoo, name):
    whole = json.loads(zoo.card("letters").to_json())
    assert fits(whole[name], SCHEMA["properties"][name])
    for value in SAMPLES.values():
        text = json.dumps({**whole, name: value})
        if fits(value, SCHEMA["properties"][name]):
            assert getattr(Card.from_json(text), name) == (tuple(value) if isinstance(value, list) else value)
        else:
            with pytest.raises(ZooError):
                Card.from_json(text)
    del whole[name]
    if name in SCHEMA["required"]:
        with pytest.raises(ZooError, match=name):
            Card.from_json(json.dumps(whole))
    else:
        Card.from_json(json.dumps(whole))
