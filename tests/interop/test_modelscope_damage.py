"""Whatever is wrong with a released checkpoint, it is refused in a line or two, and nothing is run or written."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_release import release

from vimlight.errors import CheckpointError, VimlightError, ZooError
from vimlight.interop import modelscope


@pytest.fixture
def file(tmp_path):
    return tmp_path / "pytorch_model.pt"


def refusal(file, **arguments):
    """Returns the text with which loading and importing are refused."""
    before = sorted(file.parent.rglob("*"))
    texts = []
    for call in (lambda: modelscope.load(file, **arguments), lambda: modelscope.import_zoo(file, file.parent / "zoo")):
        with pytest.raises(CheckpointError) as error:
            call()
        texts.append(str(error.value))
    assert sorted(file.parent.rglob("*")) == before, "nothing is written"
    assert texts[0] == texts[1]
    assert error.value.exit_code == 2
    assert len(texts[0].splitlines()) <= 2
    assert len(texts[0]) < 300
    assert texts[0].startswith(f"{file.name}: ")
    return texts[0].removeprefix(f"{file.name}: ")


def without(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def put(value, *path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


UNIT = ("ViM_weights", 1, "vim_att_weights", 2)
AGG = ("ViM_agg_weights", "seg-voc")
BLOCK = "transformer.resblocks.2.mlp.c_fc.weight"
CHANGES = {
    "no meta": (without("meta_info"), "the file lacks 'meta_info', which the released layout has"),
    "no backbone": (without("backbone_weights"), "the file lacks 'backbone_weights', which the released layout has"),
    "no modules": (without("ViM_weights"), "the file lacks 'ViM_weights', which the released layout has; nearest"),
    "no gates": (without("ViM_agg_weights"), "the file lacks 'ViM_agg_weights', which the released layout has; nea"),
    "no heads": (without("head_weights"), "the file lacks 'head_weights', which the released layout has"),
    "no task list": (without("meta_info", "task_list"), "meta_info lacks 'task_list', which the released layout has"),
    "no arch": (without("meta_info", "backbone_arch"), "meta_info lacks 'backbone_arch', which the released layout"),
    "no algorithm": (without("meta_info", "ViM_agg_algo"), "meta_info lacks 'ViM_agg_algo', which the released layo"),
    "no labels": (without("meta_info", "label_map"), "meta_info lacks 'label_map', which the released layout has"),
    "another algorithm": (
        put("Merge", "meta_info", "ViM_agg_algo"),
        "unknown aggregation in meta_info.ViM_agg_algo 'Merge'; valid: Ens-MoE",
    ),
    "a similar algorithm": (put("ens-moe", "meta_info", "ViM_agg_algo"), "aggregation in meta_info.ViM_agg_algo "
        "'ens-moe'; did you mean 'Ens-MoE'?"),
    "a task without gates": (
        without(*AGG), "task 'seg-voc' is listed in meta_info.task_list, but ViM_agg_weights does not have it"
    ),
    "a task without head": (
        without("head_weights", "cls-pets"),
        "task 'cls-pets' is listed in meta_info.task_list, but head_weights does not have it",
    ),
    "another kind of task": (
        put(["det-coco"], "meta_info", "task_list"), "task 'det-coco': names begin with 'cls' or 'seg', which picks "
    ),
    "a task twice": (put(["cls-pets"] * 2, "meta_info", "task_list"), "task 'cls-pets' is listed more than once"),
    "a task that is no text": (put([3], "meta_info", "task_list"), "meta_info.task_list must hold texts, not int"),
    "no list of tasks": (put("cls-pets", "meta_info", "task_list"), "meta_info.task_list must be a list, not str"),
    "labels of numbers": (put({"seg-voc": [1]}, "meta_info", "label_map"), "meta_info.label_map['seg-voc'] must "),
    "labels of keys": (put({"seg-voc": {"a": "b"}}, "meta_info", "label_map"), "meta_info.label_map['seg-voc'] must "
        "have label numbers as its keys"),
    "a lacking tensor of the backbone": (
        without("backbone_weights", BLOCK), f"backbone_weights lacks '{BLOCK}'"
    ),
    "a lacking size of the backbone": (without("backbone_weights", "proj"), "backbone_weights lacks 'proj'"),
    "no block": (
        lambda content: [content["backbone_weights"].pop(n) for n in list(content["backbone_weights"]) if "res" in n],
        "backbone_weights lacks 'transformer.resblocks.0.mlp.c_fc.weight'",
    ),
    "a wrong shape of the backbone": (
        put(torch.ones(99, 48), "backbone_weights", BLOCK), f"'{BLOCK}' is (99, 48), expected (100, 48)"
    ),
    "a scalar size": (
        put(torch.ones(()), "backbone_weights", "class_embedding"), "'class_embedding' is (), expected 1 dimensions"
    ),
    "no square": (
        put(torch.ones(28, 48), "backbone_weights", "positional_embedding"),
        "'positional_embedding' has 28 rows, not one and those of a square of patches",
    ),
    "a stranger in the backbone": (
        put(torch.ones(1), "backbone_weights", "logit_scale"),
        "backbone_weights has 'logit_scale', which a CLIP image tower does not",
    ),
    "a far block": (
        put(torch.ones(48), "backbone_weights", "transformer.resblocks.999999999.ln_1.bias"),
        "backbone_weights lacks 'transformer.resblocks.3.ln_1.weight'",
    ),
    "fewer layers": (without("ViM_weights", 2), "ViM_weights has 2 layers, but the backbone has 3 blocks"),
    "no place": (without("ViM_weights", 2, "vim_mlp_weights"), "ViM_weights[2] lacks 'vim_mlp_weights', "),
    "a lacking tensor of a module": (
        without(*UNIT, "adapter_up.bias"), "ViM_weights[1].vim_att_weights[2] lacks 'adapter_up.bias'"
    ),
    "a stranger in a module": (
        put(torch.ones(1), *UNIT, "scale"), "ViM_weights[1].vim_att_weights[2] has 'scale', which the released layout "
    ),
    "a wrong kernel": (
        put(torch.ones(6, 6, 5, 5), *UNIT, "adapter_conv.weight"),
        "ViM_weights[1].vim_att_weights[2]: 'adapter_conv.weight' is (6, 6, 5, 5), expected (6, 6, 3, 3)",
    ),
    "a module of another width": (
        put(torch.ones(6, 32), *UNIT, "adapter_down.weight"), "'adapter_down.weight' is (6, 32), expected (6, 48)"
    ),
    "no hidden unit": (
        put(torch.ones(0, 48), *UNIT, "adapter_down.weight"), "'adapter_down.weight' is (0, 48), expected (h, 48)"
    ),
    "something else than a tensor": (
        put([1.0], *UNIT, "adapter_up.bias"), "'adapter_up.bias' must be a tensor, not list"
    ),
    "whole numbers": (
        put(torch.ones(48).int(), *UNIT, "adapter_up.bias"), "must hold plain floating-point numbers, not torch.int32"
    ),
    "sparse numbers": (
        put(torch.ones(48).to_sparse(), *UNIT, "adapter_up.bias"), "must hold plain floating-point numbers, not "
    ),
    "a list for a layer": (put([], "ViM_weights", 0), "ViM_weights[0] must be a dictionary, not list"),
    "fewer gates": (
        put(torch.ones(4), *AGG, 1, "vim_mlp_agg"),
        "ViM_agg_weights['seg-voc'][1].vim_mlp_agg is (4,), but there are 5 modules",
    ),
    "fewer layers of gates": (
        without(*AGG, 0), "ViM_agg_weights['seg-voc'] has 2 layers, but the backbone has 3 blocks"
    ),
    "gates that are no numbers": (
        put(torch.full((5,), float("nan")), *AGG, 1, "vim_mlp_agg"), "[nan, nan, nan, nan, nan], of which there is"
    ),
    "gates of minus infinity alone": (
        put(torch.full((5,), float("-inf")), *AGG, 1, "vim_mlp_agg"), "of which there is no softmax"
    ),
    "a head of another width": (
        put(torch.ones(7, 21), "head_weights", "cls-pets", "classifier.weight"),
        "head_weights['cls-pets']: 'classifier.weight' is (7, 21), expected (7, 20)",
    ),
    "the other head": (
        put({"classifier.weight": torch.ones(4, 20), "classifier.bias": torch.ones(4)}, "head_weights", "seg-voc"),
        "head_weights['seg-voc'] lacks 'fpn_head.conv_seg.bias', so it is not a Semantic-FPN",
    ),
    "a lacking tensor of a head": (
        without("head_weights", "seg-voc", "pre_fpn.1.bias"), "head_weights['seg-voc'] lacks 'pre_fpn.1.bias'"
    ),
    "a stranger in a head": (
        put(torch.ones(1), "head_weights", "cls-pets", "scale"),
        "head_weights['cls-pets'] has 'scale', which a linear head does not",
    ),
    "a head's size of no dimension": (
        put(torch.ones(()), "head_weights", "cls-pets", "classifier.bias"), "'classifier.bias' is (), expected one dime"
    ),
    "our own note of no numbers": (
        put({"preprocessing": {"mean": [1.0], "std": [1.0], "crop_pct": 1.0, "interpolation": ""}}, "meta_info",
            "vimlight"), "meta_info.vimlight.preprocessing must hold three numbers as mean and three as std"
    ),
    "our own note of another crop mode": (
        put({"preprocessing": {"mean": [1.0] * 3, "std": [1.0] * 3, "crop_pct": 1.0, "interpolation": "bilinear",
            "crop_mode": "sqash"}}, "meta_info", "vimlight"), "unknown crop_mode 'sqash'; did you mean 'squash'?"
    ),
    "our own note of nothing cropped": (
        put({"preprocessing": {"mean": [1.0] * 3, "std": [1.0] * 3, "crop_pct": 0.0, "interpolation": "bilinear"}},
            "meta_info", "vimlight"), "crop_pct must be above 0, got 0.0"
    ),
    "our own note of heads": (
        put({"heads": "many"}, "meta_info", "vimlight"), "many attention heads cannot share 48 channels"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_contents_that_are_not_of_the_layout(file, name):
    change, message = CHANGES[name]
    content = release()
    change(content)
    torch.save(content, file)
    assert message in refusal(file)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), {"state_dict": {}}, {}])
def test_other_checkpoints(file, content):
    torch.save(content, file)
    text = refusal(file)
    assert text.startswith(("the file must be a dictionary, not", "the file lacks 'meta_info'"))


def test_norms_need_not_count_their_batches(file):
    content = release()
    for name in list(content["head_weights"]["seg-voc"]):
        if name.endswith("num_batches_tracked"):
            del content["head_weights"]["seg-voc"][name]
    torch.save(content, file)
    modelscope.import_zoo(file, file.parent / "zoo")
    modelscope.export_zoo(file.parent / "zoo", file.parent / "again.pt")
    again = torch.load(file.parent / "again.pt", weights_only=True)["head_weights"]["seg-voc"]
    assert set(again) == set(content["head_weights"]["seg-voc"])


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "run")


DUMPS = {
    "torch": torch.save,
    "torch as it was": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    **{
        f"pickle {number}": lambda content, path, number=number: path.write_bytes(pickle.dumps(content, number))
        for number in (0, 2, 5)
    },
}


@pytest.mark.parametrize("dump", DUMPS)
def test_a_malicious_pickle_is_not_run(file, dump, tmp_path):
    mark = tmp_path / "run"
    content = {**release(), "meta_info": {**release()["meta_info"], "label_map": Malicious(mark)}}
    DUMPS[dump](content, file)
    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists(), "the pickle is malicious"
    mark.unlink()
    text = refusal(file)
    assert not mark.exists()
    assert "a pickle can run code" in text or text == "is no file of torch.save, which the released layout is"


@pytest.mark.parametrize("dump", ["torch", "torch as it was"])
@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, -1])
def test_truncated(file, dump, keep):
    DUMPS[dump](release(), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    text = refusal(file)
    start_lost = keep in (0, 3) and text.startswith("is no file of torch.save")
    assert start_lost or text == "is truncated or damaged; fetch it again"


@pytest.mark.parametrize("content", [b"nonsense", b"<html>404</html>", b"PK\x03\x04nonsense", b"\x80\x02nonsense"])
def test_no_pickle_at_all(file, content):
    file.write_bytes(content)
    assert refusal(file).startswith(("is no file of torch.save", "is truncated or damaged", "holds more than plain"))


def test_another_archive(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert refusal(file) == "is truncated or damaged; fetch it again"


@pytest.mark.parametrize("place", [0.1, 0.3, 0.6])
def test_bytes_that_were_altered(file, place):
    torch.save(release(), file)
    content = bytearray(file.read_bytes())
    # The pickle, with the names, stands at the front; the weights themselves carry no hash.
    start = content.index(b"data.pkl") + 100
    start += int(place * 4000)
    content[start : start + 40] = bytes(40)
    file.write_bytes(content)
    assert refusal(file)


def test_a_safetensors_file_and_a_missing_one(tmp_path):
    path = tmp_path / "pytorch_model.safetensors"
    save_file({"a": torch.ones(1)}, path)
    assert refusal(path).startswith("is a .safetensors file; the released layout is a file of torch.save")
    assert refusal(tmp_path / "pytorch_modle.safetensors") == (
        "does not exist; did you mean 'pytorch_model.safetensors'?"
    )


def test_heads_that_do_not_fit(file):
    torch.save(release(), file)
    with pytest.raises(CheckpointError, match=r"5 attention heads cannot share 48 channels; .*give heads=N"):
        modelscope.load(file, heads=5)
    torch.save(release(width=160), file)
    assert modelscope.load(file).backbone.model.blocks[0].attn.num_heads == 2
    torch.save(release(width=200), file)
    assert "3 attention heads cannot share 200 channels" in refusal(file)
    assert modelscope.load(file, heads=4).tasks


@pytest.fixture
def zoo(file):
    torch.save(release(), file)
    modelscope.import_zoo(file, file.parent / "zoo")
    return file.parent / "zoo"


def zoo_refusal(zoo, kind=ZooError):
    texts = []
    for call in (lambda: modelscope.load(zoo), lambda: modelscope.export_zoo(zoo, zoo.parent / "out.pt")):
        with pytest.raises(kind) as error:
            call()
        texts.append(str(error.value))
    assert not (zoo.parent / "out.pt").exists()
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) <= 2
    return texts[0]


@pytest.mark.parametrize("name", ["backbone/backbone.safetensors", "tasks/seg-voc.safetensors", "vim-3.safetensors"])
def test_files_of_a_zoo_that_are_not_what_they_were(zoo, name):
    path = zoo / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert f"{path.name} is truncated or damaged" in zoo_refusal(zoo)
    torch.save({"a": torch.ones(1)}, path)
    assert f"{path.name} is a pickle under a false name and is not read, since a pickle can run" in zoo_refusal(zoo)
    save_file({"a": torch.ones(1)}, path)
    assert path.name in zoo_refusal(zoo)
    path.write_bytes(whole)
    assert modelscope.load(zoo).tasks == ["cls-pets", "seg-voc"]


def test_a_zoo_without_a_backbone(zoo):
    (zoo / "backbone" / "backbone.safetensors").unlink()
    assert "keeps no backbone" in zoo_refusal(zoo)
    with pytest.raises(ZooError, match="does not exist"):
        modelscope.export_zoo(zoo.parent / "zo", zoo.parent / "out.pt")


def test_a_zoo_that_cannot_be_written(file):
    torch.save(release(tasks={"seg-" + "\N{GRINNING FACE}" * 50: 3}), file)
    with pytest.raises(VimlightError, match="cannot be written: File name too long"):
        modelscope.import_zoo(file, file.parent / "zoo")
    assert sorted(path.name for path in file.parent.iterdir()) == ["pytorch_model.pt"]
