"""Whatever is wrong with a file or a name, the error says so in one or two lines."""

from __future__ import annotations

import dataclasses
import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from vimlight.backbone import create_backbone
from vimlight.errors import FingerprintError, ZooError
from vimlight.plugins import list_plugins
from vimlight.zoo import Zoo
from vimlight.zoo.files import pack_module, read_module, sha256_of


def _message(call, error_type=ZooError):
    with pytest.raises(error_type) as error:
        call()
    text = str(error.value)
    assert len(text.splitlines()) <= 2
    assert len(text) < 300
    return text


@pytest.fixture
def file(zoo):
    return zoo.path / "letters.safetensors"


@pytest.fixture
def rewrite(file):
    """Returns a function that writes the module anew, with valid hashes, after changing its card and tensors."""

    def write(change_tensors=lambda tensors: tensors, **card_changes):
        card, tensors = read_module(file)
        tensors = change_tensors(tensors)
        card = dataclasses.replace(card, sha256=sha256_of(tensors), **card_changes)
        file.write_bytes(pack_module(card, tensors))

    return write


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(zoo, backbone, file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    assert "letters.safetensors is truncated or damaged" in _message(lambda: zoo.load("letters", backbone))
    assert "letters.safetensors is truncated or damaged" in _message(lambda: zoo.card("letters"))
    (problem,) = zoo.verify()
    assert problem.file == "letters.safetensors"
    assert problem.text.startswith("is truncated or damaged")


def test_one_bit_of_a_tensor_flipped(zoo, backbone, file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    expected = "letters.safetensors: the tensors were altered after they were saved (their SHA-256 differs)"
    assert _message(lambda: zoo.load("letters", backbone)) == expected
    assert zoo.verify() == [("letters.safetensors", expected.removeprefix("letters.safetensors: "))]


def test_a_better_metric_written_into_the_header(zoo, backbone, file):
    content = file.read_bytes()
    assert content.count(b"0.9375") == 1
    file.write_bytes(content.replace(b"0.9375", b"0.9999"))
    for call in (lambda: zoo.load("letters", backbone), lambda: zoo.card("letters")):
        assert _message(call) == "letters.safetensors: the card was altered after it was saved (its SHA-256 differs)"


def test_a_tensor_renamed_in_the_header(zoo, backbone, file):
    file.write_bytes(file.read_bytes().replace(b"attn.down.bias", b"attn.down.bios"))
    assert "the tensors were altered" in _message(lambda: zoo.load("letters", backbone))


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_under_a_false_name(zoo, backbone, file, dump):
    dump({"weight": torch.ones(2)}, file)
    assert "letters.safetensors is a pickle under a false name" in _message(lambda: zoo.load("letters", backbone))
    assert "a pickle can run code" in _message(lambda: Zoo(zoo.path / "other").add_file(file))


def test_a_pickle_under_its_own_name(zoo, tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "module.pt")
    message = _message(lambda: zoo.add_file(tmp_path / "module.pt"))
    assert message == "'module.pt' is no .safetensors file; a zoo reads nothing else, since a pickle can run code"


def test_plain_tensors_are_no_module(zoo, tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    message = _message(lambda: zoo.add_file(tmp_path / "model.safetensors"))
    assert message.startswith("model.safetensors holds tensors but no card, so it is no module of a zoo")


def test_another_backbone_of_the_same_name(zoo, backbone, other_backbone):
    message = _message(lambda: zoo.load("letters", other_backbone), FingerprintError)
    assert message == (
        f"module 'letters' was trained on 'test_vit' (fingerprint {backbone.fingerprint[:12]}), "
        f"not on 'test_vit' ({other_backbone.fingerprint[:12]}): same name, other weights"
    )


def test_another_backbone(zoo):
    wrong = create_backbone("test_vit2", img_size=32)
    message = _message(lambda: zoo.load("letters", wrong), FingerprintError)
    assert "was trained on 'test_vit' (" in message
    assert message.endswith(f"not on 'test_vit2' ({wrong.fingerprint[:12]})")


def test_other_preprocessing(zoo, backbone, monkeypatch):
    changed = dataclasses.replace(backbone.preprocessing, mean=(0.0, 0.0, 0.0))
    monkeypatch.setattr(backbone, "preprocessing", changed)
    monkeypatch.setitem(vars(backbone), "fingerprint", backbone.compute_fingerprint())
    assert _message(lambda: zoo.load("letters", backbone), FingerprintError).endswith("same name, other preprocessing")


def test_a_module_from_before_crop_modes_were_known(zoo, backbone, monkeypatch):
    squashed, cropped = (dataclasses.replace(backbone.preprocessing, crop_mode=mode) for mode in ("squash", "center"))
    monkeypatch.setattr(backbone, "preprocessing", squashed)
    monkeypatch.setitem(vars(backbone), "fingerprint", backbone.compute_fingerprint())
    assert _message(lambda: zoo.load("letters", backbone), FingerprintError).endswith(
        "the weights are the same, but images were cropped then, and crop_mode is 'squash' now; to go on as before, "
        "set pretrained_cfg_overlay: {crop_mode: center} among the backbone's arguments"
    )
    monkeypatch.setattr(backbone, "preprocessing", cropped)
    monkeypatch.setitem(vars(backbone), "fingerprint", backbone.compute_fingerprint())
    assert zoo.load("letters", backbone)


def test_missing_and_extra_tensors(zoo, backbone, rewrite):
    def rename(tensors):
        tensors["units.strange"] = tensors.pop("units.blocks/0/attn.down.bias")
        return tensors

    rewrite(rename)
    assert _message(lambda: zoo.load("letters", backbone)) == (
        "module 'letters' lacks 1 tensors, such as 'units.blocks/0/attn.down.bias' "
        "and has 1 tensors too many, such as 'units.strange', for a plug-in of type 'convpass'"
    )


def test_a_tensor_of_another_shape(zoo, backbone, rewrite):
    key = "units.blocks/0/attn.down.bias"
    rewrite(lambda tensors: {**tensors, key: torch.ones(5)})
    message = _message(lambda: zoo.load("letters", backbone))
    assert message == f"module 'letters': tensor '{key}' has shape (5,), but (4,) is expected"


def test_an_unknown_plugin_type(zoo, backbone, rewrite, file):
    rewrite(kind="convpas")
    expected = "unknown plug-in 'convpas'; did you mean 'convpass'?"
    assert _message(lambda: zoo.load("letters", backbone)) == f"module 'letters': {expected}"
    assert _message(lambda: Zoo(zoo.path / "other").add_file(file)) == f"letters.safetensors: {expected}"
    assert zoo.verify() == [("letters.safetensors", expected)]


def test_an_unknown_setting_and_an_unknown_site(zoo, backbone, rewrite):
    rewrite(settings={"hiden": 4})
    message = _message(lambda: zoo.load("letters", backbone))
    assert message == "module 'letters': unknown setting of plug-in 'convpass' 'hiden'; did you mean 'hidden'?"
    rewrite(sites=("blocks.0.atn",))
    message = _message(lambda: zoo.load("letters", backbone))
    assert message.startswith(
        "module 'letters': unknown site of 'test_vit' 'blocks.0.atn'; did you mean 'blocks.0.attn'"
    )


def test_a_newer_format(zoo, backbone, rewrite):
    rewrite(format_version=3)
    message = _message(lambda: zoo.load("letters", backbone))
    newer = "written by a newer vimlight (format 3, this one reads up to 2): upgrade vimlight"
    assert message == f"letters.safetensors: {newer}"


def test_names_that_are_not_there(zoo, backbone, tmp_path):
    near = f"unknown module of zoo '{zoo.path}': 'leters'; did you mean 'letters'?"
    for call in (zoo.card, zoo.load_head, zoo.remove, lambda name: zoo.load(name, backbone)):
        assert _message(lambda call=call: call("leters")) == near
    (tmp_path / "empty").mkdir()
    assert _message(lambda: Zoo(tmp_path / "empty").card("a")).endswith("is empty, so there is no module 'a'")
    assert _message(lambda: Zoo(tmp_path / "none").card("a")).endswith("does not exist, so there is no module 'a'")
    assert _message(lambda: Zoo(tmp_path / "none").verify()).endswith("does not exist")


def test_no_directory(zoo, file):
    assert "is not a directory; a zoo is a directory of .safetensors files" in _message(lambda: Zoo(file))


def test_a_missing_file(zoo, tmp_path):
    message = _message(lambda: Zoo(tmp_path / "new").add_file(zoo.path / "leters.safetensors"))
    assert "leters.safetensors' does not exist; did you mean 'letters.safetensors'?" in message


def test_heads_are_checked_too(zoo, file, tmp_path):
    content = file.read_bytes()
    # The largest of the head's numbers.
    file.write_bytes(content.replace(struct.pack("<f", 11), struct.pack("<f", 13)))
    altered = "letters.safetensors: the head was altered after it was saved (its SHA-256 differs)"
    assert _message(lambda: zoo.load_head("letters")) == altered
    assert zoo.verify() == [("letters.safetensors", altered.removeprefix("letters.safetensors: "))]
    assert _message(lambda: zoo.export("letters", tmp_path / "out")) == altered
    assert not (tmp_path / "out").exists()


def test_heads_beside_modules_of_an_earlier_version_are_checked(zoo, pair, make_module, tmp_path):
    _, head = pair("letters")
    whole = head.read_bytes()
    head.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    altered = "letters.head.safetensors: the head was altered after it was saved (its SHA-256 differs)"
    assert _message(lambda: zoo.load_head("letters")) == altered
    assert [problem.text for problem in zoo.verify()] == [altered]
    assert _message(lambda: zoo.export("letters", tmp_path / "out")) == altered
    assert not (tmp_path / "out").exists()

    zoo.add("digits", make_module(), head={"weight": torch.zeros(3)})
    _, other = pair("digits")
    head.write_bytes(other.read_bytes())
    assert _message(lambda: zoo.load_head("letters")) == (
        "letters.head.safetensors is not the head that letters.safetensors was saved with; move it away"
    )
    (zoo.path / "digits.safetensors").unlink()
    assert ("digits.head.safetensors", "is a head, but there is no module 'digits'") in zoo.verify()


def test_a_head_is_no_module(zoo, pair):
    pair("letters")
    message = _message(lambda: zoo.add_file(zoo.path / "letters.head.safetensors"))
    assert message == "letters.head.safetensors is a head; add the module letters.safetensors beside it"


def test_only_plugins_are_kept(zoo):
    message = _message(lambda: zoo.add("layer", torch.nn.Linear(2, 2)))
    assert message == "a zoo keeps plug-ins made by create_plugin, not Linear"


def test_what_is_written_is_json(file):
    length = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"]["card"])["task"] == "classification"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_neither_come_nor_go(zoo, backbone, file, rewrite, make_module, bad):
    module = make_module()
    next(module.parameters()).data.view(-1)[0] = bad
    said = _message(lambda: zoo.add("spoilt", module))
    assert said.startswith("module 'spoilt': 1 of ")
    assert "are NaN or infinite, as after a training that diverged; train it anew" in said
    assert "the head of module 'spoilt': 1 of 2 numbers in 'bias'" in _message(
        lambda: zoo.add("spoilt", make_module(), head={"bias": torch.tensor([bad, 0.0])})
    )
    assert zoo.names() == ["letters"]
    rewrite(lambda tensors: {name: value.fill_(bad) for name, value in tensors.items()})
    assert "are NaN or infinite" in _message(lambda: zoo.load("letters", backbone))
    assert "are NaN or infinite" in _message(lambda: Zoo(zoo.path.parent / "other").add_file(file))
    assert "are NaN or infinite" in zoo.verify()[-1].text


@pytest.mark.parametrize("kind", list_plugins())
def test_forged_settings_are_refused_before_memory_is_taken(zoo, backbone, make_module, kind):
    module = make_module(kind)
    zoo.add("forged", module)
    file = zoo.path / "forged.safetensors"
    card, tensors = read_module(file)
    sizes = [key for key in ("hidden", "rank", "groups") if key in card.settings]
    forged = [{key: value} for key in sizes for value in (10**9, 10**12, 10**30, 1e9, -1, "8", [8], {})]
    forged += [{key: float("nan")} for key, value in card.settings.items() if isinstance(value, float)]
    forged += [{"dropout": 2.0}, {"dropout": "x"}] if "dropout" in card.settings else []
    for changes in forged:
        changed = dataclasses.replace(card, settings={**card.settings, **changes})
        file.write_bytes(pack_module(changed, tensors))
        assert _message(lambda: zoo.load("forged", backbone)).startswith("module 'forged'")
    file.write_bytes(pack_module(card, tensors))
    assert zoo.load("forged", backbone).identity() == module.identity()


def test_a_site_that_is_named_twice(zoo, backbone, rewrite):
    rewrite(sites=("blocks.0.attn",) * 9)
    assert _message(lambda: zoo.load("letters", backbone)) == "module 'letters': the card names a site twice"
