"""Signed modules: `vimlight zoo sign` and `verify`, and signatures that go along with what is shared."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess

import pytest
from calling import refusal, run

from vimlight.errors import ZooError
from vimlight.zoo import signing
from vimlight.zoo.sharing import INDEX, open_place, push
from vimlight.zoo.signing import key_of, sign, signature_of, signed_text

needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Two keys, `ann` and `bob`, and who is allowed: each of them alone, and by `other` ann for other things."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ann", "bob"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / f"{name}.allowed").write_text(f"{name}@lab.org {(folder / f'{name}.pub').read_text()}")
    other = f'ann@lab.org namespaces="git" {(folder / "ann.pub").read_text()}'
    (folder / "other.allowed").write_text(other)
    return folder


@pytest.fixture
def signed(zoo, keys):
    run("sign", "letters", "--key", keys / "ann", "--zoo", zoo.path)
    return zoo


@pytest.fixture
def shared(signed, tmp_path):
    push(signed, open_place(str(tmp_path / "shared")))
    return tmp_path / "shared"


def verified(zoo, capsys, *arguments):
    """Returns what `verify` prints as JSON, whether it finds anything bad or not."""
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        run("verify", "--json", "--zoo", zoo.path, *arguments)
    return json.loads(capsys.readouterr().out)


@needs_ssh
def test_verify_says_who_signed(signed, keys, make_module, capsys):
    signed.add("plain", make_module())
    assert verified(signed, capsys, "--allowed-signers", keys / "ann.allowed")["signatures"] == {
        "letters": "signed by ann@lab.org", "plain": "not signed"
    }  # fmt: skip
    run("verify", "--zoo", signed.path, "--allowed-signers", keys / "ann.allowed")
    assert capsys.readouterr().out.endswith("letters\tsigned by ann@lab.org\nplain\tnot signed\n")
    said = verified(signed, capsys)["signatures"]["letters"]
    assert said.startswith("signed with ED25519 key SHA256:")
    assert said.endswith("; --allowed-signers tells whose it is")


@needs_ssh
@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        ("bob.allowed", "the signature is good, but ED25519 key SHA256:"),
        ("other.allowed", "key is not permitted for use in signature namespace"),
    ],
)
def test_verify_refuses_who_is_not_allowed(signed, keys, capsys, allowed, text):
    (problem,) = verified(signed, capsys, "--allowed-signers", keys / allowed)["problems"]
    assert problem["file"] == "letters.sig"
    assert text in problem["text"]


def _another_card(zoo, module):
    zoo.add("letters", module, {"license": "mit"}, overwrite=True)


def _another_module(zoo, module):
    zoo.add("letters", module, zoo.card("letters"), head=zoo.load_head("letters"), overwrite=True)


def _another_head(zoo, module):
    head = {name: tensor + 1 for name, tensor in zoo.load_head("letters").items()}
    zoo.add("letters", module, zoo.card("letters"), head=head, overwrite=True)


@needs_ssh
@pytest.mark.parametrize("change", [_another_card, _another_module, _another_head])
def test_a_signature_is_of_card_tensors_and_head(signed, make_module, keys, capsys, change):
    signature = (signed.path / "letters.sig").read_text()
    change(signed, make_module(seed=int(change is _another_module), hidden=4))
    assert not (signed.path / "letters.sig").exists(), "what is replaced is no longer signed"
    (signed.path / "letters.sig").write_text(signature)
    for asked in ((), ("--allowed-signers", keys / "ann.allowed")):
        (problem,) = verified(signed, capsys, *asked)["problems"]
        assert "the signature is bad: the module is not what was signed" in problem["text"]


@needs_ssh
@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN SSH SIGNATURE-----\nnonsense", "é"])
def test_what_is_no_signature_is_refused(signed, capsys, text):
    (signed.path / "letters.sig").write_text(text)
    (problem,) = verified(signed, capsys)["problems"]
    assert "is no SSH signature" in problem["text"] or "the signature is bad" in problem["text"]


@needs_ssh
def test_signatures_come_along(signed, shared, mine, keys, tmp_path, capsys):
    run("pull", shared, "--zoo", mine.path, "--require-signature", keys / "ann.allowed")
    assert "letters: signed by ann@lab.org\n" in capsys.readouterr().out
    assert signature_of(mine, "letters") == signature_of(signed, "letters")
    mine.export("letters", tmp_path / "copied")
    assert (tmp_path / "copied" / "letters.sig").read_text() == signature_of(signed, "letters")
    mine.remove("letters")
    assert not (mine.path / "letters.sig").exists()


@needs_ssh
def test_a_signature_of_what_is_shared_already_follows(zoo, mine, keys, tmp_path):
    place = tmp_path / "shared"
    push(zoo, open_place(str(place)))
    run("pull", place, "--zoo", mine.path)
    run("sign", "--key", keys / "ann", "--zoo", zoo.path)
    run("push", place, "--zoo", zoo.path)
    run("pull", place, "--zoo", mine.path)
    first = signature_of(mine, "letters")
    assert key_of(mine.card("letters"), first)
    # Somebody else's stands in its place only if that is asked for.
    run("sign", "--key", keys / "bob", "--zoo", zoo.path)
    for asked, expected in (((), first), (("--overwrite",), signature_of(zoo, "letters"))):
        run("push", place, "--zoo", zoo.path, *asked)
        assert json.loads((place / INDEX).read_text())["modules"]["letters"]["signature"] == expected


@needs_ssh
@pytest.mark.parametrize("command", ["pull", "sync"])
def test_what_nobody_signed_whom_one_trusts_is_not_fetched(shared, mine, keys, command):
    said = refusal(command, shared, "--zoo", mine.path, "--require-signature", keys / "bob.allowed")
    assert said.startswith(f"module 'letters' of {shared}: the signature is good, but ED25519 key SHA256:")
    said = refusal(command, shared, "--zoo", mine.path, "--require-signature", keys / "nobody.allowed")
    assert said.startswith(f"file of allowed signers '{keys / 'nobody.allowed'}' does not exist")
    content = json.loads((shared / INDEX).read_text())
    del content["modules"]["letters"]["signature"]
    (shared / INDEX).write_text(json.dumps(content))
    said = refusal(command, shared, "--zoo", mine.path, "--require-signature", keys / "ann.allowed")
    assert said == f"module 'letters' of {shared} is not signed"
    assert not mine.path.exists() or len(mine) == 0


@needs_ssh
def test_a_lock_is_restored_from_signed_modules_alone(signed, shared, mine, keys, tmp_path):
    from vimlight.zoo.sharing import write_lock

    write_lock(signed, ["letters"], tmp_path / "zoo.lock")
    asked = ("pull", "--locked", tmp_path / "zoo.lock", "--zoo", mine.path, "--require-signature")
    assert "none of the allowed signers" in refusal(*asked, keys / "bob.allowed")
    run(*asked, keys / "ann.allowed")
    assert signature_of(mine, "letters") == signature_of(signed, "letters")


def test_an_index_with_a_strange_signature_is_refused(zoo, mine, tmp_path):
    push(zoo, open_place(str(tmp_path / "shared")))
    file = tmp_path / "shared" / INDEX
    content = json.loads(file.read_text())
    content["modules"]["letters"]["signature"] = ["x"]
    file.write_text(json.dumps(content))
    assert "module 'letters': its signature is no SSH signature" in refusal("pull", file.parent, "--zoo", mine.path)


@needs_ssh
@pytest.mark.parametrize(
    ("key", "text"), [("carol", "carol' does not exist"), ("ann.allowed", "signs nothing: ")], ids=str
)
def test_what_is_no_key(zoo, keys, key, text):
    assert text in refusal("sign", "letters", "--key", keys / key, "--zoo", zoo.path)


@needs_ssh
def test_what_is_damaged_is_not_signed(zoo, keys):
    file = zoo.file("letters")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert "altered" in refusal("sign", "--key", keys / "ann", "--zoo", zoo.path)
    assert not (zoo.path / "letters.sig").exists()


def test_without_ssh_keygen(zoo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signing.shutil, "which", lambda _: None)
    key = tmp_path / "key"
    key.write_text("")
    missing = "ssh-keygen, which makes and checks signatures, is not installed; it comes with OpenSSH"
    assert refusal("sign", "--key", key, "--zoo", zoo.path) == missing
    (zoo.path / "letters.sig").write_text("-----BEGIN SSH SIGNATURE-----")
    found = verified(zoo, capsys)
    assert (found["signatures"], found["problems"]) == (
        {"letters": "not checked: ssh-keygen is not installed"}, []
    )  # fmt: skip
    assert verified(zoo, capsys, "--allowed-signers", key)["problems"] == [{"file": "letters.sig", "text": missing}]


def test_ssh_keygen_that_does_not_answer(zoo, tmp_path, monkeypatch):
    def wait(*_, **__):
        raise subprocess.TimeoutExpired("ssh-keygen", 120)

    monkeypatch.setattr(signing.subprocess, "run", wait)
    monkeypatch.setattr(signing.shutil, "which", lambda _: "ssh-keygen")
    (tmp_path / "key").write_text("")
    with pytest.raises(ZooError, match="ssh-keygen gave no answer within 120 s"):
        sign(zoo.card("letters"), tmp_path / "key")


def test_what_is_signed_stays_when_cards_get_new_fields(zoo):
    """Of a card only what it states is signed, with its keys in order."""
    stated = json.loads(signed_text(zoo.card("letters")))
    assert list(stated) == sorted(stated)
    assert "author" not in stated
    assert "format_version" not in stated
    assert {"sha256", "head", "license", "kind", "sites"} <= stated.keys()
