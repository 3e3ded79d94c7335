"""`vimlight zoo import` and `vimlight zoo export` with another format, as the command line runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from tiny_release import release, same

from vimlight.backbone import create_backbone
from vimlight.cli import main
from vimlight.interop import FORMATS
from vimlight.interop.modelscope import backbone_of
from vimlight.plugins import create_plugin
from vimlight.zoo import Zoo


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(release(), "pytorch_model.pt")
    return tmp_path


def run(line):
    main(line.split())


def refusal(line, capsys):
    """Returns the text with which a command line is refused."""
    with pytest.raises(SystemExit) as leaving:
        run(line)
    assert leaving.value.code == 2
    text = capsys.readouterr().err
    assert len(text.splitlines()) <= 2
    assert "Traceback" not in text
    return text.removeprefix("vimlight: ").rstrip("\n")


def test_there_and_back(workplace, capsys):
    run("zoo import modelscope pytorch_model.pt --out zoo")
    assert capsys.readouterr().out.splitlines() == [
        "part\twhat\twhere",
        "backbone\twidth 48, blocks 3, heads 1, patch 8, image 40\tzoo/backbone",
        "zoo\tmodules 5, hidden units 6\tzoo",
        "task cls-pets\tclasses 7\tzoo/tasks",
        "task seg-voc\tclasses 4\tzoo/tasks",
    ]
    run("zoo list --zoo zoo")
    assert capsys.readouterr().out.count("convpass") == 5
    run("zoo verify")
    assert capsys.readouterr().out.startswith("modules checked: 5, all of them whole\n")
    run("zoo export modelscope --zoo zoo --to again.pt")
    assert capsys.readouterr().out.splitlines()[-1] == "task seg-voc\tclasses 4\tagain.pt"
    assert not same(release(), torch.load("again.pt", weights_only=True))
    assert sorted(path.name for path in workplace.iterdir()) == ["again.pt", "pytorch_model.pt", "zoo"]


def test_some_modules_and_more_heads(workplace, capsys):
    run("zoo import modelscope pytorch_model.pt --out zoo --heads 4")
    assert "heads 4" in capsys.readouterr().out
    assert "task 'cls-pets' uses module 'vim-3'" in refusal("zoo export modelscope vim-1 vim-2 --to x.pt", capsys)
    run("zoo export vim-1 --to copies.v2")
    assert Zoo("copies.v2").names() == ["vim-1"]


def test_a_module_that_is_called_like_a_format(workplace, capsys):
    run("zoo import modelscope pytorch_model.pt --out zoo")
    run("zoo export vim-1 --to modelscope.safetensors")
    run("zoo add modelscope.safetensors")
    run("zoo export modelscope --to alone.safetensors")
    assert Zoo(workplace).card("alone") == Zoo("zoo").card("vim-1")
    run("zoo export modelscope --to six.pt")
    assert len(torch.load("six.pt", weights_only=True)["ViM_weights"][0]["vim_att_weights"]) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("zoo import modelscop pytorch_model.pt --out new", "unknown format 'modelscop'; did you mean 'modelscope'?"),
        (
            "zoo import modelscope pytorch_modle.pt --out new",
            "file 'pytorch_modle.pt' does not exist; did you mean 'pytorch_model.pt'?",
        ),
        ("zoo import modelscope zoo --out new", "zoo: is a directory; the released layout is a file, pytorch_model.pt"),
        (
            "zoo import modelscope pytorch_model.pt --out zoo",
            "'zoo' exists; an import makes a new zoo, so choose another directory for --out",
        ),
        (
            "zoo import modelscope pytorch_model.pt",
            "the following arguments are required: --out; see vimlight zoo import --help",
        ),
        (
            "zoo import modelscope pytorch_model.pt --out new --heads many",
            "argument --heads: invalid int value: 'many'; see vimlight zoo import --help",
        ),
        (
            "zoo import modelscope pytorch_model.pt --out new --heads 7",
            "pytorch_model.pt: 7 attention heads cannot share 48 channels; the layout does not say how many there are: "
            "give heads=N (--heads N)",
        ),
        ("zoo export modelscop --to x.pt", "unknown format 'modelscop'; did you mean 'modelscope'?"),
        (
            "zoo export modelscope --to x.bin",
            "'x.bin': the released layout is a .pt file, such as pytorch_model.pt",
        ),
        ("zoo export modelscope --to pytorch_model.pt", "'pytorch_model.pt' exists; choose another path"),
        ("zoo export modelscope vim-9 --to x.pt", "unknown module of zoo 'zoo': 'vim-9'; did you mean 'vim-5'"),
        ("zoo export vim-9 --to x", "unknown module of zoo 'zoo': 'vim-9'; did you mean"),
    ],
)
def test_mistakes(workplace, capsys, line, message):
    run("zoo import modelscope pytorch_model.pt --out zoo")
    capsys.readouterr()
    before = sorted(workplace.rglob("*"))
    assert refusal(line, capsys).startswith(message)
    assert sorted(workplace.rglob("*")) == before


def test_a_damaged_checkpoint_leaves_no_zoo(workplace, capsys):
    (workplace / "pytorch_model.pt").write_bytes((workplace / "pytorch_model.pt").read_bytes()[:-100])
    text = refusal("zoo import modelscope pytorch_model.pt --out zoo", capsys)
    assert text == "pytorch_model.pt: is truncated or damaged; fetch it again"
    assert [path.name for path in workplace.iterdir()] == ["pytorch_model.pt"]


def test_a_module_of_another_type(workplace, capsys):
    run("zoo import modelscope pytorch_model.pt --out zoo")
    Zoo("zoo").add("low-rank", create_plugin("lora", backbone_of("zoo")))
    text = refusal("zoo export modelscope --to x.pt", capsys)
    assert text == "module 'low-rank' is of type 'lora'; the released layout holds 'convpass' alone"


def test_every_format_says_how_its_files_end():
    assert list(FORMATS) == ["modelscope", "peft", "petl"]
    for kind in FORMATS.values():
        # Nothing for folders, and never what modules themselves are.
        assert kind.suffix == "" or kind.suffix.startswith(".")
        assert kind.suffix != ".safetensors"
        assert kind.text


SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
VIT = yaml.safe_dump({"name": "vit_tiny_patch16_224", "checkpoint": "vit.pt", **SIZES})


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A directory with a backbone's weights, a zoo of a `lora` and a `convpass` module, and a file of PETL-ViT's."""
    monkeypatch.chdir(tmp_path)
    torch.save(create_backbone("vit_tiny_patch16_224", **SIZES).model.state_dict(), "vit.pt")
    backbone = create_backbone(**yaml.safe_load(VIT))
    for kind in ("lora", "convpass"):
        Zoo("zoo").add(f"my-{kind}", create_plugin(kind, backbone))
    trained = {}
    for site, unit in create_plugin("convpass", backbone, hidden=2).units.items():
        block, place = site.replace("/", ".").rsplit(".", 1)
        for name, tensor in unit.state_dict().items():
            trained[f"{block}.adapter_{place}.adapter_{name}"] = tensor
    torch.save(trained, "cifar.pt")
    return tmp_path


def export(name):
    main(["zoo", "export", "peft", name, "--zoo", "zoo", "--to", "adapter", "--backbone", VIT])


def test_a_module_goes_to_peft_and_comes_back(modules, capsys):
    export("my-lora")
    assert capsys.readouterr().out.splitlines()[-1].startswith("adapter\tlora of 2 layers for 'vit_tiny_patch16_224'")
    assert {path.name for path in Path("adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    main(["zoo", "import", "peft", "adapter", "--backbone", VIT, "--out", "other", "--name", "back"])
    assert capsys.readouterr().out.splitlines()[-1] == "back\tlora at 4 places of vit_tiny_patch16_224\tother"
    assert Zoo("other").card("back") == Zoo("zoo").card("my-lora")


def test_a_file_of_petl_becomes_a_module(modules, capsys):
    main(["zoo", "import", "petl", "cifar.pt", "--backbone", VIT, "--out", "zoo", "--scale", "0.1"])
    assert Zoo("zoo").names() == ["cifar", "my-convpass", "my-lora"]
    assert Zoo("zoo").card("cifar").settings == {"hidden": 2, "scale": 0.1, "dropout": 0.1}


def test_single_modules_and_their_mistakes(modules, capsys):
    export("my-lora")
    before = set(modules.rglob("*"))

    def said(line, *words):
        with pytest.raises(SystemExit) as leaving:
            main([*line.split(), *words])
        assert leaving.value.code == 2
        assert set(modules.rglob("*")) == before, "nothing is left behind"
        return capsys.readouterr().err

    out = ("--backbone", VIT, "--out", "zoo")
    assert "name it with --backbone NAME" in said("zoo import peft adapter --out new")
    assert "unknown backbone 'vit_tin'" in said("zoo import peft adapter --out new --backbone vit_tin")
    assert "lack 'name'" in said("zoo import peft adapter --out new --backbone", "{nam: x}")
    assert "is no valid YAML" in said("zoo import peft adapter --out new --backbone", "{name: [")
    assert "has a module 'my-lora' already" in said("zoo import peft adapter --name my-lora", *out)
    text = said("zoo import peft adapter --heads 2", *out)
    assert "--heads is no option of peft, which takes --backbone, --name" in text
    assert "give it with --scale S" in said("zoo import petl cifar.pt", *out)
    assert "file 'adapte' does not exist" in said("zoo import peft adapte", *out)
    assert "unknown format 'pef'; did you mean 'peft'" in said("zoo import pef adapter", *out)
    assert "'my-convpass' is a convpass" in said("zoo export peft my-convpass --zoo zoo --to new")
    text = said("zoo export peft --zoo zoo --to new")
    assert "holds one adapter; name one module of ['my-convpass', 'my-lora']" in text
    assert "exists; an adapter is written to a new folder" in said("zoo export peft my-lora --zoo zoo --to adapter")
    assert "this format can only be read" in said("zoo export petl my-convpass --zoo zoo --to new.pt")
    text = said("zoo export peft my-lora --zoo zoo --to new")
    assert "'blocks.0.attn.qkv', which is not so in 'vit_tiny_patch16_224' as it comes; describe the" in text
    assert "--backbone is no option of modelscope" in said("zoo export modelscope --zoo zoo --to x.pt --backbone a")
    assert "--backbone is no option of a copy" in said("zoo export my-lora --zoo zoo --to copies --backbone a")
    assert "is no valid YAML" in said("zoo export peft my-lora --zoo zoo --to new --backbone", "{name: [")
    assert "did you mean 'my-lora'" in said("zoo export peft my-lor --zoo zoo --to new")
    assert "unknown module" in said("zoo export my-lor --zoo zoo --to new")
