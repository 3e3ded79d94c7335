"""Files of every format answer as the model does, or are refused with the reason."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors import safe_open
from torch.torch_version import TorchVersion

from vimlight.aggregation import list_aggregators
from vimlight.deployment import FORMATS, deploy
from vimlight.errors import ConfigError, ExportError, UnknownNameError
from vimlight.files.exported import CARD, deviation

onnxruntime = pytest.importorskip("onnxruntime")
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
FIXED = ["ens_moe", "merge", "best_single", "uniform"]


def close(found, wanted):
    assert deviation(torch.as_tensor(found), wanted) < 1e-4


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape[0] == "batch"
    return session.run(None, {"images": images.numpy()})[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", list_aggregators())
@pytest.mark.parametrize("kind", ["convpass", "lora"])
@torch.no_grad()
def test_every_aggregator_in_onnx(backbone, images, every_deployed, tmp_path, how, kind):
    model, deployed, _ = every_deployed(backbone, images, how, kind)
    file = tmp_path / "model.onnx"
    assert deployed.save(file) < 1e-4
    for count in (1, 5):
        close(run_onnx(file, images[:count]), model(images[:count]))


@torch.no_grad()
def test_an_onnx_file_with_its_card(vit, trained, tmp_path):
    model = trained(vit, ["convpass", "lora"])
    deployed = deploy(model, "predictions")
    file = tmp_path / "model.onnx"
    assert deployed.save(file, opset=18) < 1e-4
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["model.onnx"]
    (tmp_path / "elsewhere").mkdir()
    file = file.rename(tmp_path / "elsewhere" / "moved.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["vimlight"]) == deployed.card
    assert [given.name for given in session.get_outputs()] == ["predictions"]
    images = torch.randn(3, 3, 32, 32)
    close(run_onnx(file, images), model(images).softmax(dim=1))


@torch.no_grad()
def test_a_program_with_its_card(deployed, model, tmp_path):
    file = tmp_path / "model.pt2"
    assert deployed.save(file) < 1e-4
    extra = {CARD: ""}
    program = torch.export.load(file, extra_files=extra)
    assert json.loads(extra[CARD]) == deployed.card
    images = torch.randn(7, 3, 32, 32)
    close(program.module()(images), model(images))


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("lora", "ens_moe"), ("ssf", "ens_moe"), ("repadapter", "ens_moe"),
        *(pytest.param("lora", how, marks=pytest.mark.slow) for how in FIXED[1:]),
    ],
)  # fmt: skip
@torch.no_grad()
def test_timm_loads_the_weights_of_what_folds(vit, trained, tmp_path, kind, how):
    model = trained(vit, [kind, kind], how)
    deployed = deploy(model)
    file = tmp_path / "model.safetensors"
    assert deployed.save(file) < 1e-4
    with safe_open(file, "pt") as content:
        assert json.loads(content.metadata()["vimlight"]) == deployed.card
    images = torch.randn(3, 3, 32, 32)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=4, checkpoint_path=str(file), **VIT).eval()
    close(plain(images), model(images))


@torch.no_grad()
def test_timm_loads_the_weights_of_a_convolutional_model(cnn, trained, tmp_path):
    model = trained(cnn, ["lora", "lora"])
    deploy(model).save(tmp_path / "model.safetensors", "timm")
    plain = timm.create_model("test_efficientnet", num_classes=4, checkpoint_path=str(tmp_path / "model.safetensors"))
    images = torch.randn(3, 3, 32, 32)
    close(plain.eval()(images), model(images))


def test_what_a_timm_model_cannot_hold_is_refused(vit, deployed, routed, trained, tmp_path):
    refused = {
        "the Convpass modules at 'blocks.0.attn' do not fold into the weights": deployed,
        "'router' is no fixed sum in one pass": routed,
        "'k_streams' is no fixed sum in one pass": deploy(trained(vit, ["lora"], "k_streams")),
        "reads the last feature, this head reads 'layers'": deploy(trained(vit, ["lora"], readout="layers")),
    }
    for message, model in refused.items():
        with pytest.raises(ExportError, match=message):
            model.save(tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_other_refusals_of_timm(vit, cnn, linear, trained, tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(ExportError, match="a timm model returns logits, not predictions"):
        deploy(trained(vit, ["lora"]), "predictions").save(file)
    with pytest.raises(ExportError, match=r"a bias at 'blocks.\d.0.conv\w*.bias', which 'test_effic.* has none"):
        deploy(trained(cnn, ["repadapter"])).save(file)
    with pytest.raises(ExportError, match="an opset is ONNX's"):
        linear.save(file, opset=18)


def test_formats_and_suffixes(deployed, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown export format 'onx'; did you mean 'onnx'"):
        deployed.save(tmp_path / "model.onnx", "onx")
    with pytest.raises(ExportError, match=r"files of the format onnx end in \.onnx, not as 'model.pt2' does"):
        deployed.save(tmp_path / "model.pt2", "onnx")
    with pytest.raises(ExportError, match=r"the suffix of 'model.pth' is that of no export format; valid: \.onnx"):
        deployed.save(tmp_path / "model.pth")
    assert not list(tmp_path.glob("model.*"))
    assert sorted(FORMATS) == ["onnx", "timm", "torch_export"]


@pytest.mark.slow
def test_an_opset_that_cannot_be_had(deployed, tmp_path):
    with pytest.raises(ExportError, match=r"cannot be had in ONNX's opset 3; the nearest is \d+"):
        deployed.save(tmp_path / "model.onnx", opset=3)
    assert not list(tmp_path.glob("model.*"))


@pytest.mark.parametrize(("version", "hint"), [
    ("2.6.0+cpu", "; torch 2.6 exports with: pip install 'onnxscript<0.5.4' 'onnx-ir<0.1.16'"),
    ("2.7.0", ""), ("2.14.1", ""),
])  # fmt: skip
def test_what_the_exporter_refuses_says_what_an_old_torch_needs(deployed, tmp_path, monkeypatch, version, hint):
    def refuse(*_, **__):
        raise torch.onnx.OnnxExporterError("no such operator\nNext steps: ...")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with pytest.raises(ExportError, match=f"refuses the model: no such operator{hint}$"):
        deployed.save(tmp_path / "model.onnx")
    assert not list(tmp_path.glob("model.*"))


def test_a_file_is_replaced_only_if_asked(linear, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"kept")
    with pytest.raises(ConfigError, match="exists; choose another path"):
        linear.save(file)
    assert file.read_bytes() == b"kept"
    linear.save(file, overwrite=True)
    with safe_open(file, "pt") as content:
        assert content.keys()


def test_a_file_that_answers_otherwise_does_not_appear(deployed, routed, tmp_path, monkeypatch):
    monkeypatch.setattr(deployed, "program", routed.program)
    with pytest.raises(ExportError, match=r"the answers of the torch\.export program differ"):
        deployed.save(tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()
