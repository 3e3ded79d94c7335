"""An adapter as a file: what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_pair import AUX, CLASSES, WIDTH, adapter

from vimlight.errors import AdapterError, ConfigError
from vimlight.files.tensor_file import pack, sha256_of
from vimlight.transmiter import GapRidge, TransMiter, load_adapter
from vimlight.transmiter.adapters import ADAPTERS
from vimlight.transmiter.adapters.basis import BASES
from vimlight.transmiter.adapters.file import read_adapter, read_card


def gap_ridge(reads="logits"):
    made = GapRidge(WIDTH, len(CLASSES), reads, 5 if reads == "features" else None)
    made.weight.copy_(torch.arange(made.weight.numel()).view_as(made.weight).sin())
    return made


MADE = {f"transmiter, {basis}": lambda basis=basis: adapter(basis=basis) for basis in BASES}
MADE |= {f"gap_ridge, {reads}": lambda reads=reads: gap_ridge(reads) for reads in ("logits", "features")}


@pytest.fixture
def file(tmp_path):
    made = adapter().describe(class_names=CLASSES, aux_names=AUX, model="weak")
    made.describe(history=made.card.after("extraction", caches={"zero_shot": {"model": "weak", "hash": "abc"}}))
    path = tmp_path / "a.safetensors"
    made.save(path)
    return path


def message(call, error=AdapterError):
    with pytest.raises(error) as raised:
        call()
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 300
    return text


def test_every_kind_is_tested():
    assert {name.split(",")[0] for name in MADE} == set(ADAPTERS)


@pytest.mark.parametrize("name", list(MADE))
def test_what_is_saved_comes_back(tmp_path, name, untouched_rng):
    made = MADE[name]()
    made.save(tmp_path / "a.safetensors")
    loaded = load_adapter(tmp_path / "a.safetensors")
    assert type(loaded) is type(made)
    assert type(made).load(tmp_path / "a.safetensors").settings == loaded.settings == made.settings
    assert not loaded.training
    assert loaded.state_dict().keys() == made.state_dict().keys()
    for key, value in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    with torch.no_grad():
        rows, features = torch.linspace(-1, 2, 3 * WIDTH).view(3, WIDTH).sin(), torch.ones(3, 5)
        assert torch.equal(loaded.task_logits(rows, features), made.task_logits(rows, features))


def test_the_card(file):
    card = read_card(file)
    assert card == TransMiter.load(file).card
    assert (card.kind, card.model, card.class_names, card.aux_names) == ("transmiter", "weak", CLASSES, AUX)
    assert card.column_names == CLASSES + AUX
    assert card.settings == {"num_logits": 16, "num_classes": 4, "basis": "fixed", "hidden_ratio": 4, "seed": 0}
    assert card.history == ({"step": "extraction", "caches": {"zero_shot": {"model": "weak", "hash": "abc"}}},)
    assert set(card.versions) == {"vimlight", "torch"}
    assert card.date


def test_a_file_is_never_replaced_unasked(file):
    before = file.read_bytes()
    assert "exists; choose another path" in message(lambda: adapter(5).save(file), ConfigError)
    assert file.read_bytes() == before
    adapter(5).save(file, overwrite=True)
    assert TransMiter.load(file).settings["seed"] == 5
    assert [path.name for path in file.parent.iterdir()] == ["a.safetensors"]


def test_a_path_that_is_none(tmp_path):
    assert "an adapter is a .safetensors file; 'a.pt' ends in '.pt'" in message(lambda: adapter().save("a.pt"))
    near = message(lambda: TransMiter.load(tmp_path / "b.safetensors"))
    assert "does not exist" in near


def test_a_near_name(file):
    assert "did you mean 'a.safetensors'" in message(lambda: load_adapter(file.with_name("ab.safetensors")))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    assert "a.safetensors is truncated or damaged" in message(lambda: load_adapter(file))


def test_one_bit_of_a_tensor_flipped(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert "the tensors were altered after they were saved" in message(lambda: load_adapter(file))


def test_another_model_written_into_the_header(file):
    file.write_bytes(file.read_bytes().replace(b'\\"weak\\"', b'\\"weed\\"'))
    for call in (load_adapter, read_card):
        assert "the card was altered after it was saved" in message(lambda call=call: call(file))


def test_a_pickle_under_a_false_name(file):
    torch.save({"weight": torch.ones(2)}, file)
    assert "a.safetensors is a pickle under a false name" in message(lambda: load_adapter(file))


def test_plain_tensors_are_no_adapter(file):
    save_file({"weight": torch.ones(2)}, file)
    assert message(lambda: load_adapter(file)) == "a.safetensors holds tensors but no card, so it is no adapter"


def test_a_module_of_a_zoo_is_no_adapter(file):
    file.write_bytes(pack(json.dumps({"kind": "lora", "settings": {}, "fingerprint": "x"}), {"a": torch.ones(1)}))
    assert "this is no adapter of logits" in message(lambda: load_adapter(file))


@pytest.fixture
def rewrite(file):
    """Returns a function that writes the file anew, with valid hashes, after changing its card."""

    def write(**changes):
        card, tensors = read_adapter(file)
        values = {**vars(card), **changes}
        file.write_bytes(pack(json.dumps({key: value for key, value in values.items() if value is not None}), tensors))

    return write


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format_version": 2}, "a.safetensors: written by a newer vimlight (format 2, this one reads up to 1)"),
        ({"modell": "x"}, "a.safetensors: unknown card key 'modell'; did you mean 'model'?"),
        ({"settings": None}, "a.safetensors: the card lacks 'settings'"),
        ({"kind": "transmitr"}, "unknown kind of adapter 'transmitr'; did you mean 'transmiter'?"),
        ({"kind": "gap_ridge"}, "the 'gap_ridge' adapter cannot be made by its settings"),
        ({"settings": {"num_logits": 20, "num_classes": 4, "basis": "identity"}}, "shape (16,), but (20,) is"),
        ({"settings": {"num_logits": 16, "num_classes": 4, "basis": "fixed", "width": 3}}, "cannot be made by"),
        ({"settings": [16, 4]}, "card key 'settings' must be a mapping, not [16, 4]"),
        ({"class_names": 5}, "card key 'class_names' must be a list, not 5"),
        ({"history": "x"}, "card key 'history' must be a list, not 'x'"),
        ({"kind": {}}, "card key 'kind' must be a text, not {}"),
    ],
)
def test_cards_that_cannot_be_used(file, rewrite, changes, text):
    rewrite(**changes)
    with pytest.raises(AdapterError) as error:
        load_adapter(file)
    assert text in str(error.value)


def test_another_kind(tmp_path):
    gap_ridge().save(tmp_path / "g.safetensors")
    text = message(lambda: TransMiter.load(tmp_path / "g.safetensors"))
    assert "holds a 'gap_ridge' adapter, not 'transmiter'; load it with load_adapter" in text


@pytest.mark.parametrize("name", list(MADE))
def test_numbers_that_are_not_finite_neither_come_nor_go(tmp_path, name):
    made, path = MADE[name](), tmp_path / "a.safetensors"
    made.save(path)
    next(value for value in made.state_dict().values()).view(-1)[0] = float("nan")
    said = message(lambda: made.save(tmp_path / "b.safetensors"))
    assert said.startswith("adapter b.safetensors: 1 of ")
    assert not (tmp_path / "b.safetensors").exists()
    card, tensors = read_adapter(path)
    next(iter(tensors.values())).view(-1)[0] = float("inf")
    path.write_bytes(pack(dataclasses.replace(card, sha256=sha256_of(tensors)).to_json(), tensors))
    assert "are NaN or infinite, as after a training that diverged" in message(lambda: load_adapter(path))


@pytest.mark.parametrize("basis", list(BASES))
@pytest.mark.parametrize(
    "forged",
    [
        {"num_logits": 10**9}, {"num_logits": 10**12}, {"num_logits": 10**30}, {"num_logits": 16.5},
        {"hidden_ratio": 1e9}, {"hidden_ratio": 1e300}, {"hidden_ratio": float("nan")}, {"hidden_ratio": "4"},
    ],
    ids=str,
)  # fmt: skip
def test_forged_sizes_are_refused_before_memory_is_taken(file, rewrite, basis, forged):
    rewrite(settings={"num_logits": 16, "num_classes": 4, "basis": basis, "hidden_ratio": 4, "seed": 0} | forged)
    said = message(lambda: load_adapter(file))
    assert "is expected" in said or "cannot be made by its settings" in said


@pytest.mark.parametrize("size", [10**9, 10**12, 10**30])
def test_forged_sizes_of_a_gap_ridge(tmp_path, size):
    made = gap_ridge()
    made.save(tmp_path / "a.safetensors")
    card, tensors = read_adapter(tmp_path / "a.safetensors")
    content = json.dumps({**vars(card), "settings": {**card.settings, "num_logits": size, "num_classes": 4}})
    (tmp_path / "a.safetensors").write_bytes(pack(content, tensors))
    said = message(lambda: load_adapter(tmp_path / "a.safetensors"))
    assert "is expected" in said or "cannot be made by its settings" in said
