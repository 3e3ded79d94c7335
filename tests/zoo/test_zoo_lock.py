"""`zoo.lock`: which modules exactly a run used, and how they are had again."""

from __future__ import annotations

import json

import pytest
from calling import refusal, run

from vimlight.errors import ZooError
from vimlight.zoo.sharing import open_place, pull, push, read_lock, write_lock


@pytest.fixture
def shared(zoo, tmp_path, make_module):
    """A directory with two modules, which the zoo has been pushed to."""
    zoo.add("shapes", make_module(seed=1))
    push(zoo, open_place(str(tmp_path / "shared")))
    return tmp_path / "shared"


@pytest.fixture
def lock(zoo, shared, tmp_path):
    write_lock(zoo, ["letters"], tmp_path / "zoo.lock")
    return tmp_path / "zoo.lock"


def test_a_lock_names_content_and_place(zoo, shared, lock):
    card = zoo.card("letters")
    assert json.loads(lock.read_text()) == {
        "format_version": 1,
        "modules": {"letters": {"sha256": card.sha256, "head": card.head, "from": str(shared)}},
    }


def test_exactly_what_is_locked_is_restored(zoo, lock, mine, capsys):
    run("pull", "--locked", lock, "--zoo", mine.path)
    assert mine.names() == ["letters"]
    assert mine.file("letters").read_bytes() == zoo.file("letters").read_bytes()
    assert f"modules pulled into zoo '{mine.path}', as {lock} says: 1" in capsys.readouterr().out
    run("pull", "--locked", lock, "--zoo", mine.path)
    assert capsys.readouterr().out.endswith(": 0\n")
    write_lock(mine, ["letters"], lock.with_name("again.lock"))
    assert lock.with_name("again.lock").read_text() == lock.read_text()


def test_what_is_there_under_the_name_is_not_replaced_unasked(lock, mine, make_module):
    mine.add("letters", make_module(seed=7))
    said = refusal("pull", "--locked", lock, "--zoo", mine.path)
    assert said.startswith(f"zoo '{mine.path}' has another module 'letters' than the lock: replace it with --overwrite")
    run("pull", "--locked", lock, "--zoo", mine.path, "--overwrite")
    assert read_lock(lock)[0].is_of(mine.card("letters"))


def test_what_has_changed_where_it_came_from_is_said(zoo, shared, lock, mine, make_module, tmp_path):
    locked = zoo.card("letters").sha256
    push(zoo, open_place(str(tmp_path / "kept")))
    zoo.add("letters", make_module(seed=7), overwrite=True)
    push(zoo, open_place(str(shared)), overwrite=True)
    now = zoo.card("letters").sha256
    said = refusal("pull", "--locked", lock, "--zoo", mine.path)
    assert said == (
        f"module 'letters' of {shared} is another one by now (SHA-256 {now[:12]}, locked is {locked[:12]}): "
        "it cannot be restored from there"
    )
    run("pull", tmp_path / "kept", "--locked", lock, "--zoo", mine.path)
    assert mine.card("letters").sha256 == locked


def test_a_module_that_was_never_shared_or_has_changed_since_has_no_place(zoo, shared, lock, mine, make_module):
    zoo.add("letters", make_module(seed=7), overwrite=True)
    zoo.add("own", make_module(seed=8))
    write_lock(zoo, ["letters", "own", "shapes"], lock)
    assert [pin.source for pin in read_lock(lock)] == ["", "", str(shared)]
    said = refusal("pull", "--locked", lock, "--zoo", mine.path)
    assert said == f"{lock} does not say where 'letters' is to be had; name the URL of a zoo"


def test_what_was_pulled_is_known_by_where_it_came_from(shared, lock, mine):
    place = open_place(str(shared))
    pull(mine, place, place.index().chosen([], ""))
    mine.remove("shapes")
    write_lock(mine, ["letters"], lock)
    assert read_lock(lock)[0].source == str(shared)
    origins = mine.path / ".origins.json"
    push(mine, place)
    assert set(json.loads(origins.read_text())["modules"]) == {"letters"}, "what is gone is forgotten"
    origins.write_text("{")
    with pytest.raises(ZooError, match=r"is no JSON: .*; remove '.*origins.json', which tells no more than where"):
        write_lock(mine, ["letters"], lock)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "zoo.lock must be a JSON object, not list"),
        ('{"format_version": 2}', "zoo.lock: written by a newer vimlight (format 2, this one reads up to 1)"),
        ('{"format_version": 1}', "zoo.lock: 'modules' must be an object by name, not None"),
        ('{"format_version": 1, "modules": {"../a": {}}}', "zoo.lock: '../a' cannot name a module"),
        ('{"format_version": 1, "modules": {"a": 1}}', "module 'a': it must have 'sha256', 'head' and 'from', not 1"),
        (
            '{"format_version": 1, "modules": {"a": {"sha256": "x", "head": "", "from": ""}}}',
            "module 'a': hashes are 64 hexadecimal digits, not 'x', ''",
        ),
    ],
)
def test_a_lock_is_read_with_suspicion(mine, tmp_path, content, message):
    (tmp_path / "zoo.lock").write_text(content)
    assert message in refusal("pull", "--locked", tmp_path / "zoo.lock", "--zoo", mine.path)


def test_mistakes(lock, mine, shared):
    assert refusal("pull", "--locked", f"{lock}s").endswith("does not exist; did you mean 'zoo.lock'?")
    said = refusal("pull", shared, "letters", "--locked", lock)
    assert said == "--locked says which modules are pulled: leave the names out"
    assert refusal("pull") == "vimlight zoo pull needs the URL of a zoo, or --locked with the zoo.lock of a run"
