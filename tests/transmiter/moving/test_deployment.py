"""One module from images to refined logits, plain and exported."""

from __future__ import annotations

import json

import pytest
import torch
from numerics import assert_near
from tiny_pair import AUX, CLASSES, WIDTH, adapter, write_pair
from torch import nn
from torch.nn import functional as F

from vimlight.errors import AdapterError, ConfigError, ExportError, FingerprintError
from vimlight.files.exported import CARD
from vimlight.transmiter import GapRidge, TextHead, TransMiter, write_cache
from vimlight.transmiter.adapters.basis import BASES
from vimlight.transmiter.models.image_text import load_model
from vimlight.transmiter.moving.deployment import RefinedModel, deploy

ALL = pytest.mark.parametrize("kind", [*BASES, "gap_ridge", "gap_ridge of features"])
NAME = "vit_scenes_small"


@pytest.fixture(scope="module")
def model():
    return load_model(NAME)


@pytest.fixture(scope="module")
def head(model):
    texts = [f"a photo of {name}" for name in (*CLASSES, *AUX)]
    return TextHead(model.encode_text(texts).clone(), model.scale, model.bias - 3.0)


@pytest.fixture(scope="module")
def tower(head):
    """An image encoder that is exported in a moment; files of the real one are below."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.GELU(), nn.Flatten(), nn.Linear(128, head.weights.shape[1]))


def made(kind):
    if not kind.startswith("gap_ridge"):
        return adapter(basis=kind)
    ridge = GapRidge(WIDTH, 4, "features", 128) if "features" in kind else GapRidge(WIDTH, 4)
    ridge.weight.copy_(torch.arange(ridge.weight.numel()).view_as(ridge.weight).sin() / 5)
    return ridge


def images(count):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))


@ALL
def test_it_is_the_parts_one_after_the_other(model, head, kind):
    refining = made(kind)
    with torch.no_grad():
        features = F.normalize(model.model.encode_image(images(3)), dim=1)
        logits = model.scale * features @ head.weights.T + model.bias - 3.0
        expected = refining.task_logits(logits, features)
        found = RefinedModel(model.model.visual, head, refining).eval()(images(3))
    assert found.shape == (3, 4)
    assert_near(found, expected, 1e-4)
    assert (expected - logits[:, :4]).abs().max() > 0.01


def exported_with_dynamic_batch(whole):
    batch = {"images": {0: torch.export.Dim("batch", min=1, max=64)}}
    return torch.export.export(whole, (images(2),), dynamic_shapes=batch)


@pytest.mark.slow
@ALL
def test_an_exported_program_computes_the_same(tower, head, kind):
    whole = RefinedModel(tower, head, made(kind)).eval()
    program = exported_with_dynamic_batch(whole).module()
    for count in (1, 2, 5):
        with torch.no_grad():
            assert_near(program(images(count)), whole(images(count)), 1e-4)


def moved_alone(file, tmp_path):
    """What was written, alone in a new directory."""
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    (tmp_path / "elsewhere").mkdir()
    return file.rename(tmp_path / "elsewhere" / file.name)


@pytest.mark.slow
@ALL
def test_an_onnx_file_loads_alone_and_computes_the_same(tower, head, kind, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    whole = RefinedModel(tower, head, made(kind)).eval()
    assert whole.save(tmp_path / "made" / "model.onnx", images(2)) < 1e-4
    session = runtime.InferenceSession(moved_alone(tmp_path / "made" / "model.onnx", tmp_path))
    assert [given.name for given in session.get_inputs()] == ["images"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["vimlight"])["outputs"] == "logits"
    for count in (1, 5):
        (found,) = session.run(None, {"images": images(count).numpy()})
        with torch.no_grad():
            assert_near(torch.from_numpy(found), whole(images(count)), 1e-4)


@pytest.fixture(scope="module")
def whole(tower, head):
    refining = adapter().describe(class_names=CLASSES, aux_names=AUX, model=NAME)
    return RefinedModel(tower, head, refining).eval()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_real_image_encoder_in_a_file(model, head, tmp_path, suffix):
    pytest.importorskip("onnxscript")
    assert RefinedModel(model.model.visual, head, adapter()).eval().save(tmp_path / f"model.{suffix}", images(2)) < 1e-4


def test_a_program_loads_alone_and_computes_the_same(whole, tmp_path):
    assert whole.save(tmp_path / "made" / "model.pt2", images(2)) < 1e-4
    extra = {CARD: ""}
    program = torch.export.load(moved_alone(tmp_path / "made" / "model.pt2", tmp_path), extra_files=extra)
    facts = {"outputs": "logits", "classes": list(CLASSES), "model": NAME}
    assert json.loads(extra[CARD]) == {"format_version": 1, **facts}
    with torch.no_grad():
        assert_near(program.module()(images(3)), whole(images(3)), 1e-4)


def test_files_that_are_not_written(whole, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match=r"'model\.pth' must end in \.onnx, or in \.pt2 for a program of torch"):
        whole.save(tmp_path / "model.pth", images(2))
    (tmp_path / "model.onnx").write_bytes(b"kept")
    with pytest.raises(ConfigError, match="exists; choose another path"):
        whole.save(tmp_path / "model.onnx", images(2))
    monkeypatch.setattr("vimlight.transmiter.moving.deployment.deviation", lambda *_: float("nan"))
    with pytest.raises(ExportError, match=r"the answers of 'model\.pt2' differ from the module's by nan"):
        whole.save(tmp_path / "model.pt2", images(2))
    monkeypatch.setattr("vimlight.files.exported._LARGEST_ONNX", 1000)
    with pytest.raises(ExportError, match=r"at most 2 GiB and the weights take 0\.\d; write a program of torch\.exp"):
        whole.save(tmp_path / "model.onnx", images(2), overwrite=True)
    assert (tmp_path / "model.onnx").read_bytes() == b"kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.fixture
def features_cache(model, head, tmp_path):
    def write(name="cache", **changes):
        options = {"class_names": CLASSES, "aux_names": AUX, "split": "train", "model": NAME, "weights": model.weights}
        return write_cache(tmp_path / name, features=model.encode_image(images(6)), head=head, **{**options, **changes})

    return write


def test_what_a_cache_holds_is_put_together(model, features_cache):
    cache = features_cache()
    refining = adapter().describe(class_names=CLASSES, aux_names=AUX, model=NAME)
    whole = deploy(model, cache, refining)
    with torch.no_grad():
        # The cache holds its features in half precision.
        torch.testing.assert_close(whole(images(6)), refining(cache.logits())[:, :4], rtol=1e-2, atol=5e-2)
        torch.testing.assert_close(deploy(model.model, cache, refining)(images(2)), whole(images(2)))
    assert not whole.training


def test_a_trained_basis_is_written_out(model, head):
    whole = RefinedModel(model.model.visual, head, adapter(basis="learned"))
    assert whole.adapter.settings["basis"] == "fixed"


def test_what_does_not_belong_together_is_refused(model, head, features_cache, tmp_path):
    with pytest.raises(AdapterError, match="the text head makes 16 logits, the adapter takes 20"):
        RefinedModel(model.model.visual, head, TransMiter(20, 4))
    with pytest.raises(FingerprintError, match=f"was built with weights 0123, not with those of '{NAME}'"):
        deploy(model, features_cache("other", weights="0123"), adapter())
    weak, _, _ = write_pair(tmp_path)
    with pytest.raises(AdapterError, match="weak' holds bare logits; deployment needs the text vectors"):
        deploy(model, weak, adapter())
    strange = adapter().describe(class_names=CLASSES, aux_names=AUX, model="another")
    with pytest.raises(AdapterError, match=f"holds logits of '{NAME}', the adapter refines those of 'another'"):
        deploy(model, features_cache(), strange)
