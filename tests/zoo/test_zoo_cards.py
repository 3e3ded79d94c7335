"""Cards say what they were given, and refuse what they do not know."""

from __future__ import annotations

import json

import pytest
import torch

from vimlight.errors import ZooError
from vimlight.zoo import FORMAT_VERSION, Card, Zoo

NEWER = "written by a newer vimlight (format 99, this one reads up to 2): upgrade vimlight"


def test_a_card_tells_the_whole_story(zoo, backbone):
    card = zoo.card("letters")
    assert card.format_version == FORMAT_VERSION
    assert (card.kind, card.settings["hidden"]) == ("convpass", 4)
    assert (card.backbone, card.fingerprint) == ("test_vit", backbone.fingerprint)
    assert card.preprocessing["size"] == [32, 32]
    assert card.sites[0] == "blocks.0.attn"
    assert (card.task, card.dataset, card.classes) == ("classification", "drawn letters", ("a", "b", "c"))
    assert (card.samples, card.metrics, card.seed) == ({"train": 120}, {"val": {"accuracy": 0.9375}}, 3)
    assert card.license == "apache-2.0"
    assert card.extra == {"font": "serif"}
    assert card.versions["torch"] == torch.__version__.partition("+")[0] or card.versions["torch"] == torch.__version__
    assert card.date.endswith("+00:00")
    assert len(card.sha256) == len(card.head) == 64


def test_json_there_and_back(zoo):
    card = zoo.card("letters")
    assert Card.from_json(card.to_json()) == card


def test_the_card_is_read_from_the_header_alone(zoo):
    file = zoo.path / "letters.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert zoo.card("letters").task == "classification"


def test_metrics_may_be_tensors(tmp_path, make_module):
    zoo = Zoo(tmp_path)
    zoo.add("module", make_module(), card={"metrics": {"val": {"accuracy": torch.tensor(0.5)}}})
    assert zoo.card("module").metrics == {"val": {"accuracy": 0.5}}


def test_another_modules_card_describes_a_copy(zoo, make_module):
    zoo.add("copy", make_module("ssf"), card=zoo.card("letters"))
    card = zoo.card("copy")
    assert (card.kind, card.dataset, card.date, card.head) == ("ssf", "drawn letters", zoo.card("letters").date, "")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"licence": "mit"}, "unknown card key 'licence'; did you mean 'license'?"),
        ({"zzz": 1}, "unknown card key 'zzz'; keys of your own belong under 'extra'"),
        ({"fingerprint": "0"}, "card key 'fingerprint' is filled in from the plug-in; leave it out"),
        ({"classes": "abc"}, "card key 'classes' must be a list of texts, not 'abc'"),
        ({"classes": [1]}, "card key 'classes' must be a list of texts, not [1]"),
        ({"metrics": {"accuracy": 0.5}}, "card key 'metrics' must be a mapping by split, not {'accuracy': 0.5}"),
        ({"extra": 3}, "card key 'extra' must be a mapping, not 3"),
        ({"seed": "3"}, "card key 'seed' must be a whole number, not '3'"),
        ({"task": 3}, "card key 'task' must be a text, not 3"),
        ({"extra": {"a": {1, 2}}}, "card key 'extra' holds something that JSON cannot: {1, 2} of type set"),
    ],
)
def test_wrong_cards_are_refused_before_anything_is_written(tmp_path, make_module, card, message):
    zoo = Zoo(tmp_path / "zoo")
    with pytest.raises(ZooError) as error:
        zoo.add("module", make_module(), card=card)
    assert str(error.value) == message
    assert zoo.names() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, NEWER),
        ({"format_version": 99, "brand_new": 1}, NEWER),
        ({"metrix": {}}, "unknown card key 'metrix'; did you mean 'metrics'?"),
        ({"sites": None}, "the card lacks 'sites'"),
        ({"kind": 3}, "card key 'kind' must be a text, not 3"),
    ],
)
def test_wrong_json_is_refused(zoo, change, message):
    values = {**json.loads(zoo.card("letters").to_json()), **change}
    text = json.dumps({key: value for key, value in values.items() if value is not None})
    with pytest.raises(ZooError) as error:
        Card.from_json(text)
    assert str(error.value) == message


@pytest.mark.parametrize(("text", "message"), [("{", "the card is no JSON"), ("[]", "must be a JSON object, not list")])
def test_no_json_is_refused(text, message):
    with pytest.raises(ZooError, match=message):
        Card.from_json(text)
