"""JSON of strangers: damaged, nested without end, of a version that is none."""

from __future__ import annotations

import pytest

from vimlight.data.boxes.coco import read_coco
from vimlight.errors import AdapterError, CacheError, CheckpointError, DataError, VimlightError, ZooError
from vimlight.files.json_text import check_version, json_object, json_of
from vimlight.interop.peft.config import CONFIG, read_settings
from vimlight.transmiter.adapters.file import AdapterCard
from vimlight.transmiter.cache.manifest import MANIFEST, read_manifest
from vimlight.zoo.card import Card

DEEP = "[" * 100_000


def test_what_is_read_is_what_was_written():
    assert json_of('{"a": [1, "ä"]}', "it", ZooError) == {"a": [1, "ä"]}
    assert json_object(b'{"a": 1}', "it", ZooError) == {"a": 1}
    assert check_version({"format_version": 2}, 3, ZooError) == 2
    assert check_version({}, 3, ZooError, unstated=1) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the card is no JSON: Expecting property name"),
        (b"\xff\xfe{", "the card is no JSON"),
        (DEEP, "the card is damaged: its JSON is nested too deeply"),
        ("[]", "the card must be a JSON object, not list"),
    ],
)
def test_damage_is_one_line(text, message):
    with pytest.raises(ZooError, match=message) as caught:
        json_object(text, "the card", ZooError)
    assert "\n" not in str(caught.value)


def nested(folder, name):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(DEEP)
    return folder


@pytest.mark.parametrize(
    ("read", "name", "error"),
    [
        (lambda folder: Card.from_json((folder / "card").read_text()), "card", ZooError),
        (lambda folder: AdapterCard.from_json((folder / "card").read_text()), "card", AdapterError),
        (read_manifest, MANIFEST, CacheError),
        (read_settings, CONFIG, CheckpointError),
        (lambda folder: read_coco(folder / "boxes.json", folder), "boxes.json", DataError),
    ],
)
def test_every_reader_refuses_what_is_nested_too_deeply(tmp_path, read, name, error):
    with pytest.raises(error, match="nested too deeply") as caught:
        read(nested(tmp_path / "x", name))
    assert isinstance(caught.value, VimlightError)
