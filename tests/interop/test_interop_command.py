"""`vimlight zoo import` and `vimlight zoo export` with another format, as the command line runs them."""

from __future__ import annotations

import pytest
import torch
from tiny_release import release, same

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
    assert capsys.readouterr().out == "modules checked: 5, all of them whole\n"
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
            "pytorch_modle.pt: does not exist; did you mean 'pytorch_model.pt'?",
        ),
        ("zoo import modelscope zoo --out new", "zoo: is a directory; the released layout is a file, pytorch_model.pt"),
        (
            "zoo import modelscope pytorch_model.pt --out zoo",
            "'zoo' exists; an import makes a new zoo, so choose another directory for --out",
        ),
        (
            "zoo import modelscope pytorch_model.pt",
            "vimlight zoo import: the following arguments are required: --out; see vimlight zoo import --help",
        ),
        (
            "zoo import modelscope pytorch_model.pt --out new --heads many",
            "vimlight zoo import: argument --heads: invalid int value: 'many'; see vimlight zoo import --help",
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
        ("zoo export modelscope --to pytorch_model.pt", "'pytorch_model.pt' exists; choose another path or set over"),
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
    assert list(FORMATS) == ["modelscope"]
    for kind in FORMATS.values():
        assert kind.suffix.startswith(".")
        assert kind.suffix != ".safetensors"
