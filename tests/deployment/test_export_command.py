"""`vimlight export` from the checkpoint of a run, and every mistake in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from numerics import assert_near
from tiny_run import write_config

import vimlight as vl
from vimlight.cli import main
from vimlight.deployment import load_run
from vimlight.errors import CheckpointError, ConfigError
from vimlight.files.exported import CARD

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
CKPT = "runs/fit/version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """The directory of a finished run over a zoo of two LoRA modules."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.manual_seed(0)
        torch.save(vl.create_backbone("vit_tiny_patch16_224", **VIT).model.state_dict(), "backbone.pth")
        backbone = {"name": "vit_tiny_patch16_224", "checkpoint": "backbone.pth", **VIT}
        zoo, built = vl.Zoo("zoo"), vl.create_backbone(**backbone)
        for name in ("one", "two"):
            plugin = vl.create_plugin("lora", built, rank=2)
            torch.nn.init.normal_(next(plugin.parameters()), std=0.1)
            zoo.add(name, plugin)
        optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
        arguments = {"backbone": backbone, "readout": "last", "optimizer": optimizer}
        data = {"dataset": "digits", "shots": 2, "test_limit": 20}
        write_config("digits.yaml", arguments, data)
        main(["fit", "--config", "digits.yaml"])
        # What came later, and does not fit, is not even looked at.
        zoo.add("stranger", vl.create_plugin("lora", vl.create_backbone("test_vit", img_size=32)))
    return folder


@pytest.fixture
def workplace(finished, tmp_path, monkeypatch):
    """A copy of that directory, where the test runs."""
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refused(capsys, *words):
    before = {path for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        main(["export", *words])
    assert stopped.value.code == 2
    assert {path for path in Path().rglob("*") if path.is_file()} == before, "nothing is left behind"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vimlight: ")]
    return line


@torch.no_grad()
def test_a_run_is_exported_without_its_data(workplace, capsys):
    model = load_run(CKPT)
    assert model.module_names == ["one", "two"]
    main(["export", "--ckpt", CKPT, "--format", "torch_export", "--out", "out/digits.pt2"])
    header, row = capsys.readouterr().out.splitlines()[-2:]
    assert header.split("\t") == ["file", "format", "MB", "classes", "outputs", "largest difference"]
    assert row.split("\t")[:2] + row.split("\t")[3:5] == ["out/digits.pt2", "torch.export program", "10", "logits"]
    assert float(row.split("\t")[5]) < 1e-4
    extra = {CARD: ""}
    images = torch.randn(4, 3, 32, 32)
    found = torch.export.load("out/digits.pt2", extra_files=extra).module()(images)
    assert_near(found, model(images), 1e-4)
    assert '"classes": ["0", "1"' in extra[CARD]
    main(["export", "--ckpt", CKPT, "--out", "digits.safetensors"])
    assert "timm classifier" in capsys.readouterr().out


def test_the_trained_gates_and_head_are_in_it(workplace):
    model, state = load_run(CKPT), torch.load(CKPT, weights_only=True)["state_dict"]
    assert torch.equal(model.head.weight, state["head.weight"])
    assert state["head.weight"].abs().max() > 0


def test_what_has_moved_is_named(workplace, capsys):
    Path("zoo").rename("elsewhere")
    shutil.copy(CKPT, "alone.ckpt")
    shutil.copy("runs/fit/version_0/config.yaml", "run.yaml")
    said = refused(capsys, "--ckpt", "alone.ckpt", "--out", "x.pt2")
    assert "there is no config.yaml in" in said
    assert "name the run's with --config FILE" in said
    assert "zoo 'zoo' does not exist" in refused(capsys, "--ckpt", CKPT, "--out", "x.pt2")
    main(["export", "--ckpt", "alone.ckpt", "--config", "run.yaml", "--zoo", "elsewhere", "--out", "x.safetensors"])
    assert Path("x.safetensors").is_file()


MISTAKES = {
    "format": (["--out", "x.onnx", "--format", "onx"], "unknown export format 'onx'; did you mean 'onnx'"),
    "suffix": (["--out", "x.pth"], "the suffix of 'x.pth' is that of no export format; valid: .onnx (onnx)"),
    "other suffix": (["--out", "x.pt2", "--format", "onnx"], "files of the format onnx end in .onnx"),
    "outputs": (["--out", "x.pt2", "--outputs", "logit"], "unknown outputs 'logit'; did you mean 'logits'"),
    "taken": (["--out", "digits.yaml"], "the suffix of 'digits.yaml'"),
    "directory": (["--out", "folder.pt2"], "'folder.pt2' is a directory"),
    "opset": (["--out", "x.onnx", "--opset", "ten"], "argument --opset: invalid int value: 'ten'"),
    "no file": ([], "the following arguments are required: --out"),
    "config": (["--out", "x.pt2", "--config", "no.yaml"], "config 'no.yaml' does not exist"),
    "other config": (["--out", "x.pt2", "--config", "other.yaml"], "'other.yaml' is the config of no run"),
    "no YAML": (["--out", "x.pt2", "--config", "broken.yaml"], "'broken.yaml' is no valid YAML"),
    "adapter": (["--out", "x.pt2", "--config", "adapter.yaml"], "the run trained 'ExtractionModule'; only models of"),
    "unknown class": (["--out", "x.pt2", "--config", "unknown.yaml"], "'mine.Model' cannot be imported"),
    "zoo": (["--out", "x.pt2", "--zoo", "zooo"], "zoo 'zooo' does not exist"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(workplace, capsys, mistake):
    Path("folder.pt2").mkdir()
    Path("other.yaml").write_text("data: 1")
    Path("broken.yaml").write_text("a: [")
    for name, kind in (
        ("adapter", "vimlight.transmiter.learning.extraction.ExtractionModule"),
        ("unknown", "mine.Model"),
    ):
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"model": {"class_path": kind}}))
    words, message = MISTAKES[mistake]
    assert message in refused(capsys, "--ckpt", CKPT, *words)


def test_a_checkpoint_that_is_none_is_refused(workplace, capsys):
    Path("garbage.ckpt").write_bytes(b"nothing")
    assert "'garbage.ckpt' is damaged" in refused(capsys, "--ckpt", "garbage.ckpt", "--out", "x.pt2")
    assert "'garbag.ckpt' does not exist" in refused(capsys, "--ckpt", "garbag.ckpt", "--out", "x.pt2")
    file = Path("runs/fit/version_0/config.yaml")
    settings = yaml.safe_load(file.read_text())
    settings["model"]["init_args"]["aggregator"] = "router"
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(CheckpointError, match="does not fit this DownstreamModule"):
        load_run(CKPT)
    settings["model"]["init_args"]["agregator"] = "router"
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=r"does not fit DownstreamModule: .*agregator"):
        load_run(CKPT)
