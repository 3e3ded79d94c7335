"""Zoos that are shared: through directories, object stores and web servers, none of which is trusted."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import fsspec
import pytest
from calling import refusal, run
from fsspec.registry import known_implementations
from tiny_server import serving

from vimlight.errors import ConfigError, ZooError
from vimlight.zoo.files import pack_module, read_head, read_module
from vimlight.zoo.sharing import INDEX, open_place, pull, push

# Each says where to push to in a folder, and where the same is pulled from then.
WRITABLE = {
    "directory": lambda folder: str(folder / "shared"),
    "file": lambda folder: (folder / "shared").as_uri(),
    "memory": lambda folder: f"memory:/{folder}/shared",
}


@pytest.fixture(params=WRITABLE)
def url(request, tmp_path):
    """An address that can be written, each kind in turn."""
    yield WRITABLE[request.param](tmp_path)
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def shared(zoo, tmp_path):
    """A directory that the zoo was pushed to."""
    push(zoo, open_place(str(tmp_path / "shared")))
    return tmp_path / "shared"


@pytest.fixture
def served(shared):
    with serving(shared) as server:
        yield server


def visible(zoo):
    """Returns the names of a zoo's files, but of that in which it keeps where they came from."""
    return sorted(path.name for path in zoo.path.iterdir() if path.name != ".origins.json")


def entry_of(folder):
    return json.loads((folder / INDEX).read_text())["modules"]["letters"]


def write_index(folder, change):
    """Changes what an index says of its module."""
    content = json.loads((folder / INDEX).read_text())
    content["modules"]["letters"] |= change
    (folder / INDEX).write_text(json.dumps(content))


def test_push_and_pull(zoo, mine, url, capsys):
    run("push", url, "--zoo", zoo.path)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "letters\tapache-2.0\tconvpass\ttest_vit\tclassification\tdrawn letters\taccuracy 0.9375",
        f"modules pushed to {url}: 1",
    ]
    run("pull", url, "letters", "--zoo", mine.path)
    assert mine.file("letters").read_bytes() == zoo.file("letters").read_bytes()
    assert visible(mine) == ["letters.safetensors"], "nothing else is left"
    out = capsys.readouterr().out
    assert "letters\tapache-2.0" in out
    assert f"modules pulled into zoo '{mine.path}': 1" in out


def test_what_is_there_is_not_moved_again(zoo, mine, url, make_module, capsys):
    for _ in range(2):
        run("push", url, "--zoo", zoo.path)
        run("pull", url, "--zoo", mine.path)
    assert "pushed to" in (out := capsys.readouterr().out)
    assert out.endswith(f"modules pushed to {url}: 0\nmodules pulled into zoo '{mine.path}': 0\n")
    zoo.add("shapes", make_module(seed=1))
    run("push", url, "--zoo", zoo.path)
    assert set(open_place(url).index().modules) == {"letters", "shapes"}


def test_a_copy_that_was_packed_anew_is_the_same_module(zoo, mine, shared):
    mine.add_file(zoo.file("letters"))
    run("pull", shared, "--zoo", mine.path)
    run("push", shared, "--zoo", mine.path)


def test_other_content_under_the_same_name_is_refused(zoo, mine, url, make_module):
    run("push", url, "--zoo", zoo.path)
    mine.add("letters", make_module(seed=1))
    kept = mine.file("letters").read_bytes()
    said = "other modules of these names: letters; replace them with --overwrite"
    assert refusal("push", url, "--zoo", mine.path) == f"{url} has {said}"
    assert refusal("sync", url, "--zoo", mine.path) == f"zoo '{mine.path}' has {said}"
    assert refusal("pull", url, "--zoo", mine.path) == f"zoo '{mine.path}' has {said}"
    assert mine.file("letters").read_bytes() == kept
    run("pull", url, "--zoo", mine.path, "--overwrite")
    assert mine.file("letters").read_bytes() == zoo.file("letters").read_bytes()
    mine.add("letters", make_module(seed=2), overwrite=True)
    run("push", url, "--zoo", mine.path, "--overwrite")
    run("pull", url, "--zoo", zoo.path, "--overwrite")
    assert zoo.card("letters") == mine.card("letters")


def test_sync_goes_both_ways(zoo, mine, url, make_module, capsys):
    run("sync", url, "--zoo", zoo.path)
    mine.add("shapes", make_module(seed=1))
    run("sync", url, "--zoo", mine.path)
    assert capsys.readouterr().out.endswith(f"modules pulled into zoo '{mine.path}': 1, pushed to {url}: 1\n")
    run("sync", url, "--zoo", zoo.path)
    assert zoo.names() == mine.names() == ["letters", "shapes"]


def test_sync_with_what_is_read_only_pulls_alone(served, mine, make_module, capsys):
    mine.add("shapes", make_module(seed=1))
    run("sync", served.url, "--zoo", mine.path)
    assert mine.names() == ["letters", "shapes"]
    assert capsys.readouterr().out.endswith(f"pushed to {served.url}: 0\n")


def test_over_http_it_is_pulled_and_searched_alone(served, zoo, mine, capsys):
    run("pull", served.url, "--zoo", mine.path)
    assert mine.file("letters").read_bytes() == zoo.file("letters").read_bytes()
    capsys.readouterr()
    run("search", served.url, "drawn", "--json")
    assert [module["name"] for module in json.loads(capsys.readouterr().out)] == ["letters"]
    assert refusal("push", served.url, "--zoo", zoo.path) == f"{served.url} is read-only: push to where its files lie"


@pytest.mark.parametrize(
    ("words", "found"),
    [([], True), (["LETTERS"], True), (["convpass", "apache"], True), (["letters", "road"], False), (["serif"], False)],
)
def test_search(shared, capsys, words, found):
    run("search", shared, *words)
    out = capsys.readouterr().out
    assert ("letters\tapache-2.0\tconvpass" in out) == found
    assert found or out == f"no module of {shared} has {' and '.join(map(repr, words))}\n"
    run("search", shared, *words, "--json")
    names = [module["name"] for module in json.loads(capsys.readouterr().out)]
    assert names == ["letters"] * found


def test_a_module_without_a_licence_says_so(mine, shared, make_module, capsys):
    mine.add("shapes", make_module())
    run("push", shared, "--zoo", mine.path)
    assert "shapes\t(none stated)\t" in capsys.readouterr().out


def test_pairs_of_earlier_versions_are_pushed_as_one_file(zoo, mine, pair, tmp_path):
    pair("letters")
    run("push", tmp_path / "shared", "--zoo", zoo.path)
    run("pull", tmp_path / "shared", "--zoo", mine.path)
    assert visible(mine) == ["letters.safetensors"]
    assert mine.load_head("letters").keys() == zoo.load_head("letters").keys()


def test_a_zoo_gets_its_own_index(zoo, mine):
    said = refusal("pull", zoo.path, "--zoo", mine.path)
    cure = f"vimlight zoo push {zoo.path} --zoo {zoo.path}"
    assert said == f"{zoo.path} has modules but no index.json; make one with: {cure}"
    before = zoo.file("letters").stat().st_ino
    run("push", zoo.path, "--zoo", zoo.path)
    assert zoo.file("letters").stat().st_ino == before, "the module itself is left alone"
    run("pull", zoo.path, "--zoo", mine.path)


@pytest.mark.parametrize("parts", [True, False])
def test_a_lost_connection_is_taken_up_where_it_broke(served, zoo, mine, parts):
    size = zoo.file("letters").stat().st_size
    served.breaks_off, served.parts = size // 2, parts
    said = refusal("pull", served.url, "--zoo", mine.path)
    assert said.startswith(f"module 'letters' of {served.url} cannot be fetched: ")
    assert mine.names() == []
    served.breaks_off = 0
    run("pull", served.url, "--zoo", mine.path)
    assert served.asked[-1] == ("letters.safetensors", size // 2 if parts else 0)
    assert mine.file("letters").read_bytes() == zoo.file("letters").read_bytes()
    assert visible(mine) == ["letters.safetensors"]


def test_what_a_killed_pull_left_is_gone_on_with_and_that_of_another_content_is_not(served, shared, zoo, mine):
    mine.path.mkdir()
    content, sha256 = zoo.file("letters").read_bytes(), entry_of(shared)["sha256"]
    (mine.path / f".letters.{sha256[:16]}.partial.safetensors").write_bytes(content[:100])
    (mine.path / f".letters.{'0' * 16}.partial.safetensors").write_bytes(b"other")
    other = mine.path / f".letters.b.{'0' * 16}.partial.safetensors"
    other.write_bytes(b"of another module")
    run("pull", served.url, "--zoo", mine.path)
    assert served.asked[-1] == ("letters.safetensors", 100)
    assert mine.file("letters").read_bytes() == content
    assert visible(mine) == [other.name, "letters.safetensors"]


def test_what_was_killed_between_the_names_of_a_file_leaves_none(shared, mine):
    run("pull", shared, "--zoo", mine.path)
    left = mine.path / f".letters.{entry_of(shared)['sha256'][:16]}.partial.safetensors"
    left.hardlink_to(mine.file("letters"))
    run("pull", shared, "--zoo", mine.path)
    assert visible(mine) == ["letters.safetensors"]


def test_what_is_whole_already_is_not_asked_for(served, shared, zoo, mine):
    mine.path.mkdir()
    partial = mine.path / f".letters.{entry_of(shared)['sha256'][:16]}.partial.safetensors"
    partial.write_bytes(zoo.file("letters").read_bytes())
    run("pull", served.url, "--zoo", mine.path)
    assert [name for name, _ in served.asked] == [INDEX]


def altered(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_card(file):
    """Replaces a module by one whose card says something else, and the index's hash with it."""
    card, tensors = read_module(file)
    file.write_bytes(pack_module(dataclasses.replace(card, license="mit"), tensors, read_head(file)))
    hashed_anew(file)


def no_module(file):
    file.write_bytes(b"nonsense")
    hashed_anew(file)


def hashed_anew(file):
    content = file.read_bytes()
    write_index(file.parent, {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (altered, "is not what its index says (its SHA-256 differs): it is damaged, or was being replaced"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "; the same command goes on from there"),
        (lambda file: file.write_bytes(file.read_bytes() + b"more"), "is not what its index says"),
        (lambda file: file.unlink(), "cannot be fetched: it is not there"),
        (lambda file: write_index(file.parent, {"size": 10**18}), "is said to have 1000000000000000000 bytes, for"),
        (other_card, "has another card than its index says; tell whoever keeps it"),
        (no_module, ": letters.safetensors is truncated or damaged"),
    ],
)
@pytest.mark.parametrize("way", ["directory", "http"])
def test_nothing_of_a_module_that_is_not_what_it_should_be_is_taken(shared, mine, harm, message, way):
    harm(shared / "letters.safetensors")
    with serving(shared) as server:
        assert message in refusal("pull", {"directory": shared, "http": server.url}[way], "--zoo", mine.path)
    assert mine.names() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must be a JSON object, not list"),
        ("{}", "it does not say its 'format_version'"),
        ('{"format_version": 99}', "written by a newer vimlight (format 99, this one reads up to 1): upgrade vimlight"),
        ('{"format_version": 1, "modules": []}', "'modules' must be an object by name, not []"),
        ('{"format_version": 1, "modules": {"../../x": {}}}', "module '../../x': '../../x' cannot name a module"),
        ('{"format_version": 1, "modules": {"a": 3}}', "module 'a': it must be an object, not 3"),
    ],
)
def test_an_index_is_read_with_suspicion(mine, tmp_path, content, message):
    mine.path.mkdir()
    (tmp_path / INDEX).write_text(content)
    said = refusal("pull", tmp_path, "--zoo", mine.path)
    assert said.startswith(f"index.json of {tmp_path}")
    assert message in said
    assert message in refusal("push", tmp_path, "--zoo", mine.path), "nor is it written over"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "its size must be a whole number of bytes, not 0"),
        ({"size": 1.5}, "its size must be a whole number of bytes, not 1.5"),
        ({"sha256": "../../x"}, "its sha256 must be 64 hexadecimal digits, not '../../x'"),
        ({"card": None}, "it has no card"),
        ({"card": {"kind": 1}}, "the card lacks 'settings'"),
    ],
)
def test_what_an_index_says_of_a_module_is_looked_at(shared, mine, change, message):
    if change.get("card"):
        change["card"]["format_version"] = 2
    write_index(shared, change)
    said = refusal("pull", shared, "--zoo", mine.path)
    assert said.startswith(f"index.json of {shared}, module 'letters': ")
    assert message in said


def test_an_index_that_is_too_large_is_not_read(shared, mine, monkeypatch):
    monkeypatch.setattr("vimlight.zoo.sharing.places.LARGEST_INDEX", 10)
    assert "has more than 0 MB and is not read" in refusal("pull", shared, "--zoo", mine.path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "{shared}", "leters"], "unknown module of {shared}: 'leters'; did you mean 'letters'?"),
        (["push", "{shared}", "leters"], "unknown module of zoo '{zoo}': 'leters'; did you mean 'letters'?"),
        (["pull", "nowhere"], "index.json of nowhere cannot be read: it is not there"),
        (["pull", "https://a/zoo?token=1"], "'https://a/zoo?token=1' is no address of a zoo: '::', '?' and '#'"),
        (["pull", "zip://a::memory://b"], "is no address of a zoo"),
        (["pull", "s4://bucket"], "'s4://bucket' cannot be opened: Protocol not known: s4"),
        (["pull", "http://me:secret@127.0.0.1:9/zoo"], "index.json of http://127.0.0.1:9/zoo cannot be read: "),
        (["push", "{shared}", "--zoo", "nowhere"], "zoo 'nowhere' does not exist"),
        (["push", "{zoo}/letters.safetensors"], "'{zoo}/letters.safetensors' is a file: push takes the zoo that"),
    ],
)
def test_mistakes(shared, zoo, arguments, message):
    names = {"shared": shared, "zoo": zoo.path}
    said = refusal("--zoo", zoo.path, *(word.format(**names) for word in arguments))
    assert message.format(**names) in said
    assert "secret" not in said


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(known_implementations, "s5", {"class": "no_such.FS", "err": "Install s5fs"})
    with pytest.raises(ConfigError, match="'s5://bucket/zoo' cannot be opened: Install s5fs"):
        open_place("s5://bucket/zoo")


def test_a_place_that_fails_while_it_is_written_is_one_line(zoo, monkeypatch):
    place = open_place("memory://shared")
    monkeypatch.setattr(place, "put", lambda *_: 1 / 0)
    with pytest.raises(ZooError, match="memory://shared cannot be written: division by zero"):
        push(zoo, place)


def test_who_comes_second_takes_what_is_there_and_replaces_nothing_else(shared, mine, make_module):
    place = open_place(str(shared))
    entries = place.index().chosen([], "")
    for _ in range(2):
        pull(mine, place, entries)
    mine.add("letters", make_module(seed=1), overwrite=True)
    with pytest.raises(ZooError, match="has a module 'letters' already"):
        pull(mine, place, entries)
    assert visible(mine) == ["letters.safetensors"], "what has come is of no use"
    pull(mine, place, entries, overwrite=True)
    assert visible(mine) == ["letters.safetensors"]
