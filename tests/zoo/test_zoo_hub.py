"""Zoos on the hub, of which the part that they need runs on loopback."""

from __future__ import annotations

import json

import pytest
import yaml
from calling import refusal, run
from huggingface_hub import constants, utils
from tiny_hub import hub_on_loopback

from vimlight.errors import VimlightError
from vimlight.zoo import Zoo
from vimlight.zoo.sharing import open_place, pull, push
from vimlight.zoo.sharing.readme import described

URL = "hf://me/letters"


@pytest.fixture
def hub(monkeypatch):
    with hub_on_loopback() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "none-that-anybody-has")
        yield hub


@pytest.mark.parametrize("url", [URL, "hub:me/letters", "hf://me/letters/drawn/latin"])
def test_push_and_pull(hub, zoo, mine, url, capsys):
    run("push", url, "--zoo", zoo.path)
    folder = "drawn/latin" if "drawn" in url else "zoo"
    assert set(hub.files("me/letters")) == {
        ".gitattributes", "README.md", f"{folder}/index.json", f"{folder}/letters.safetensors"
    }  # fmt: skip
    assert len(hub.commits["me/letters"]) == 2, "a push is one commit"
    run("pull", url, "--zoo", mine.path)
    assert mine.file("letters").read_bytes() == zoo.file("letters").read_bytes()
    assert capsys.readouterr().out.count("letters\tapache-2.0\tconvpass") == 2


def test_what_was_read_is_named_by_its_commit_and_stays_readable(hub, zoo, mine, make_module):
    push(zoo, open_place(URL))
    place = open_place(URL)
    entries = place.index().chosen([], URL)
    zoo.add("letters", make_module(seed=3), overwrite=True)
    push(zoo, open_place(URL), overwrite=True)
    assert place.pinned() == f"{URL}@{hub.commits['me/letters'][1][0]}"
    pull(mine, open_place(place.pinned()), entries)
    assert mine.card("letters").sha256 == entries[0].card.sha256 != zoo.card("letters").sha256
    assert "is read-only" in refusal("push", place.pinned(), "--zoo", zoo.path)


def test_of_two_that_push_at_the_same_time_one_is_told(hub, zoo, make_module):
    push(zoo, open_place(URL))
    place = open_place(URL)
    place.index()
    zoo.add("shapes", make_module(seed=1))
    push(zoo, open_place(URL))
    zoo.add("signs", make_module(seed=2))
    with pytest.raises(VimlightError, match=f"{URL} was written by somebody else meanwhile; push again"):
        push(zoo, place)


def test_the_readme_is_found_and_what_others_wrote_stays(hub, zoo, make_module):
    push(zoo, open_place(URL))
    text = hub.files("me/letters")["README.md"].decode()
    meta = yaml.safe_load(text.split("---\n")[1])
    assert meta == {
        "library_name": "vimlight", "license": "apache-2.0",
        "tags": ["classification", "convpass", "test_vit", "vimlight-zoo", "vision-middleware"],
    }  # fmt: skip
    assert "| letters | apache-2.0 | convpass | test_vit | classification | drawn letters | 3 |" in text
    assert f"vimlight zoo pull {URL}\n" in text
    own = text.replace("tags:", "language: en\ntags:").replace("# A zoo", "# My zoo") + "\nMy own words.\n"
    hub.commit("me/letters", {"README.md": own.encode()})
    zoo.add("shapes", make_module(seed=1), {"license": "LicenseRef-mine", "dataset": "a|b"})
    push(zoo, open_place(URL))
    push(zoo, open_place(f"{URL}/other"))
    text = hub.files("me/letters")["README.md"].decode()
    assert all(words in text for words in ("language: en", "# My zoo", "My own words."))
    assert text.count("| shapes | LicenseRef-mine | convpass | test_vit |  | a\\|b |  |") == 2
    assert text.count("written by vimlight zoo push") == 2, "a section for each zoo"


@pytest.mark.parametrize(
    ("licences", "said"), [(["MIT", "mit"], "mit"), (["mit", ""], "other"), (["LicenseRef-x"], "other")]
)
def test_a_licence_that_the_hub_has_no_name_for(zoo, tmp_path, make_module, licences, said):
    other = Zoo(tmp_path / "licensed")
    for number, licence in enumerate(licences):
        other.add(f"m{number}", make_module(), {"license": licence})
    push(other, place := open_place(str(tmp_path / "shared")))
    assert f"\nlicense: {said}\n" in described("", "zoo", place.index(), URL)


def test_search(hub, zoo, capsys):
    push(zoo, open_place(URL))
    capsys.readouterr()
    run("search", "hf://", "letters")
    assert capsys.readouterr().out == f"zoo\tlicence\ttags\n{URL}\tmit\tlora\n"
    asked = hub.asked[-1][1]
    assert asked.startswith("/api/models?")
    assert "filter=vimlight-zoo" in asked
    assert "search=letters" in asked
    run("search", "hub:", "--json")
    assert json.loads(capsys.readouterr().out) == [{"zoo": URL, "licence": "mit", "tags": "lora"}]
    run("search", URL, "drawn")
    assert "letters\tapache-2.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "hf://me"], "'hf://me' is no zoo of the hub: hf://OWNER/NAME, with @REVISION or /FOLDER"),
        (["pull", "hf://me/x/../../y"], "is no zoo of the hub"),
        (["pull", "hf://me/none"], "hf://me/none: there is no such repository or revision, or it is private"),
        (["pull", "hf://me/letters@v1"], "hf://me/letters@v1: there is no such repository or revision"),
        (["pull", "hf://me/letters/other"], "index.json of hf://me/letters/other cannot be read: it is not there"),
    ],
)
def test_mistakes(hub, zoo, arguments, message):
    push(zoo, open_place(URL))
    assert message in refusal(*arguments, "--zoo", zoo.path)


@pytest.fixture
def offline(monkeypatch):
    """Before its version 1 the hub's library looks when it opens a session, which it keeps."""
    forget = getattr(utils, "reset_sessions", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget()
    yield
    forget()


@pytest.mark.parametrize("arguments", [["pull", URL], ["search", "hf://"], ["push", URL]])
def test_a_hub_that_cannot_be_reached(hub, zoo, offline, arguments):
    assert "offline mode is enabled" in refusal(*arguments, "--zoo", zoo.path)
