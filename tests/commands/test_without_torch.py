"""What needs no model does without torch, and what is wrong is said before it is imported.

All commands run one after the other in one process in which torch cannot be imported.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from vimlight.backbone import create_backbone
from vimlight.plugins import create_plugin
from vimlight.transmiter import write_cache
from vimlight.zoo import Zoo

RUNNER = """
import contextlib, io, json, sys
sys.modules["torch"] = None
from vimlight.cli import main

def run(words):
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as leaving:
            code = leaving.code
        except ImportError as error:
            code = str(error)
    return code or 0, out.getvalue(), err.getvalue()

json.dump([run(line.split()) for line in json.load(sys.stdin)], sys.stdout)
"""
CONFIG = """
model: {class_path: MidstreamModule, init_args: {plugin: {kind: convpass}}}
data: {class_path: MidstreamDataModule, init_args: {dataset: scenes}}
"""
DOES = {
    "--version": "vimlight ",
    "--help": "usage: vimlight COMMAND",
    "zoo --help": "usage: vimlight zoo",
    "zoo list": "letters\tconvpass",
    "zoo list --json": '"name": "letters"',
    "zoo show letters": "kind\tconvpass",
    "zoo verify": "modules checked: 1, all of them whole",
    "configs list": "midstream/letters\tA module for the zoo: drawn capital letters",
    "configs show midstream/letters": "MidstreamModule",
    "data --help": "usage: vimlight data",
    "data list": "manifest\tpath\tOpens a table",
    "data list --json": '"name": "manifest"',
    "data show manifest": "path\tstr\t(needed)\tThe table",
    "cache --help": "usage: vimlight cache",
    "cache info caches/test": "images_per_class\ta 3, b 1, c 1",
    "cache verify caches/test": "caches checked: 1",
    "evaluate --help": "usage: vimlight evaluate",
    "transfer --help": "usage: vimlight transfer",
    "export --help": "usage: vimlight export",
    "compare --help": "usage: vimlight compare",
    "demo --help": "usage: vimlight demo",
    "new --help": "usage: vimlight new",
    "new task own": "wrote vimlight-own/vimlight_own/own.py",
    "serve --help": "usage: vimlight serve",
}
REFUSES = {
    "new plugin lora": "plug-in 'lora' is registered already; choose another name, such as 'my_lora'",
    "fitt": "unknown command 'fitt'; did you mean 'fit'?",
    "zoo lst": "unknown command of vimlight zoo 'lst'; did you mean 'list'?",
    "zoo list --zoo zo": "zoo 'zo' does not exist; did you mean 'zoo'?",
    "zoo show lettrs": "'lettrs'; did you mean 'letters'?",
    "zoo add nothing.safetensors": "'nothing.safetensors' does not exist",
    "zoo import pft x --out y": "unknown format 'pft'; did you mean 'peft'",
    "data show digts": "unknown data set 'digts'; did you mean 'digits'?",
    "data members vtab": "unknown collection of data sets 'vtab'; did you mean 'vtab1k'?",
    "cache info caches/tst": "logit cache 'caches/tst' does not exist; did you mean 'caches/test'?",
    "zoo export lettrs --to x": "'lettrs'; did you mean 'letters'?",
    "zoo import peft nothing --out y": "file 'nothing' does not exist",
    "cache merge caches/tst caches/test --out z": "logit cache 'caches/tst' does not exist; did you mean",
    "cache head caches/tst --out z": "logit cache 'caches/tst' does not exist; did you mean",
    "cache head caches/test --classes wrods.txt --out z": "file 'wrods.txt' does not exist; did you mean 'words.txt'?",
    "cache tuned caches/test wrods.txt --out z": "file 'wrods.txt' does not exist; did you mean 'words.txt'?",
    "cache import --logits wrods.txt --split test --out z": "file 'wrods.txt' does not exist;",
    "cache import --logits wrods.npz:b --split test --out z": "file 'wrods.npz:b' does not exist",
    "cache build --config lettres.yaml": "config: file 'lettres.yaml' does not exist; did you mean 'letters.yaml'?",
    "cache build --config letters.yaml --data.dataset digts": "unknown data set 'digts'; did you mean 'digits'?",
    "transfer --source caches/tst --source-tuned t --target u --out z.safetensors": "'caches/tst' does not exist",
    "transfer --source caches/test --adapter wrods.txt --target caches/test --out z.safetensors": "adapter 'wr",
    "evaluate --protocol base_to_novl --target caches/test": "unknown protocol 'base_to_novl'; did",
    "evaluate --protocol few_shot --target caches/tst": "logit cache 'caches/tst' does not exist; did you mean",
    "evaluate --protocol few_shot --target caches/test --adapter wrods.txt": "adapter 'wrods.txt' does not exist; did",
    "export --ckpt wrods.txt --out y.onnx": "checkpoint 'wrods.txt' does not exist; did you mean 'words.txt'?",
    "export --ckpt words.txt --out y.onnx --format onx": "unknown export format 'onx'; did you mean 'onnx'?",
    "serve wrods.txt": "checkpoint 'wrods.txt' does not exist; did you mean 'words.txt'?",
    "serve a=words.txt b=wrods.txt": "checkpoint 'wrods.txt' does not exist; did you mean 'words.txt'?",
    "serve digits.pt2": "'digits.pt2' is no checkpoint: an exported file has a backbone of its own, which nothing can",
    "serve words.txt --max-megabytes 0": "--max-megabytes must be more than 0, got 0",
    "serve words.txt --max-megapixels nan": "--max-megapixels must be more than 0, got nan",
    "serve words.txt --max-waiting -1": "--max-waiting must be more than 0, got -1",
    "serve words.txt --port 65536": "--port must lie between 0 and 65535, got 65536",
    "compare lettres.yaml --out z": "plan 'lettres.yaml' does not exist; did you mean 'letters.yaml'?",
    "fit --config lettres.yaml": "config: file 'lettres.yaml' does not exist; did you mean 'letters.yaml'?",
    "fit --config caches": "config: 'caches' is a directory, not a file",
    "fit --config letters.yaml --model MidstreamModul": "model: unknown class 'MidstreamModul'; did",
    "fit --config letters.yaml --data=MidstreamData": "data: unknown class 'MidstreamData'; did",
    "fit --config letters.yaml --data.dataset digts": "unknown data set 'digts'; did you mean 'digits'?",
    "fit --config letters.yaml --model.plugin.kind convpas": "unknown plug-in 'convpas'; did you mean 'convpass'?",
    "fit --config letters.yaml --model.plugin=convpas": "unknown plug-in 'convpas'; did you mean 'convpass'?",
    "fit --config letters.yaml --model.task depht": "unknown task 'depht'; did you mean 'depth'?",
    "fit --config letters.yaml --ckpt_path wrods.txt": "checkpoint 'wrods.txt' does not exist; did",
    "test --config letters.yaml --model=DownstreamModule --model.aggregator en_moe": "unknown aggregator 'en_moe'",
    "cache verify caches/tst": "logit cache 'caches/tst' does not exist; did you mean 'caches/test'?",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each command printed and left with."""
    place = tmp_path_factory.mktemp("place")
    backbone = create_backbone("test_vit", img_size=32)
    head = nn.Linear(4, 3).state_dict()
    Zoo(place / "zoo").add("letters", create_plugin("convpass", backbone, hidden=2), head=head)
    labels = torch.tensor([0, 0, 1, 2, 0])
    logits = torch.arange(15.0).reshape(5, 3)
    write_cache(
        place / "caches/test", logits=logits, labels=labels, class_names=["a", "b", "c"], split="test", model="m"
    )
    (place / "letters.yaml").write_text(CONFIG)
    (place / "words.txt").write_text("a\nb\nc\n")
    lines = [*DOES, *REFUSES]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(lines), capture_output=True, text=True, cwd=place, timeout=120, check=True,
    )  # fmt: skip
    return dict(zip(lines, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("line", DOES)
def test_what_needs_no_model_needs_no_torch(line, said):
    code, printed, wrong = said[line]
    assert (code, wrong) == (0, "")
    assert DOES[line] in printed


def test_names_of_classes_are_those_of_the_command():
    from vimlight.commands import beforehand, train

    assert tuple(each.__name__ for each in train._MODELS) == beforehand.MODELS
    assert tuple(each.__name__ for each in train._DATA) == beforehand.DATA


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--model", "my.Model", "--model.plugin", "own", "--data.class_path=my.Data", "--data.dataset=own"],
        ["--config", "{model: MidstreamModule}"],
        ["--model=MidstreamModule", "--model.plugin={kind: lora}", "--ckpt_path=null"],
    ],
)
def test_what_may_be_right_is_left_to_the_parser(words):
    from vimlight.commands.beforehand import check_training

    check_training(words)


@pytest.mark.parametrize("line", REFUSES)
def test_what_is_wrong_is_said_before_torch_is_imported(line, said):
    code, printed, wrong = said[line]
    assert (code, printed) == (2, "")
    assert REFUSES[line] in wrong
