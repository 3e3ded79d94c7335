"""Whatever the README and the pages of the documentation show is run, or at least understood."""

from __future__ import annotations

import ast
import csv
import importlib
import json
import re
import shlex
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
import yaml
from numerics import assert_near, shaken

import vimlight as vl
from vimlight.aggregation import AGGREGATORS
from vimlight.cli import TRAINING, main
from vimlight.commands.beforehand import check_images, check_training
from vimlight.commands.options import Parser
from vimlight.data import SOURCES
from vimlight.plugins import PLUGINS
from vimlight.shipped import config_names, resolved
from vimlight.transmiter import LogitCache, TransMiter

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
# Pages whose blocks are run one after the other in one place, what stands on several of them once.
STORIES = {
    "a zoo": [
        "README.md", "docs/quickstart.md", "docs/recipes/own-data.md", "docs/recipes/share.md",
        "docs/recipes/faster.md", "docs/recipes/several-tasks.md",
    ],
    "a deployment": ["docs/recipes/deploy.md"],
    "a transfer": ["docs/recipes/transmiter.md", "docs/recipes/closed-models.md"],
}  # fmt: skip
# Pages that tests of their own run.
ELSEWHERE = {"docs/recipes/released-checkpoint.md": "interop/test_interop_readme.py"}
# What makes a command quick without changing what it does.
QUICK = {
    "@transmiter/cache": "--data.dataset_args.train 800 --data.dataset_args.test 400",
    "@midstream": "--data.dataset_args.train 64 --data.dataset_args.test 8 --trainer.max_epochs 1",
    "@downstream": "--trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1 --data.test_limit 8",
}
PRINTS = {
    "README.md": r"torch\.Size\(\[2, 192\]\) torch\.Size\(\[24, 2\]\)",
    "docs/quickstart.md": r"torch\.Size\(\[2, 192\]\) torch\.Size\(\[24, 2\]\)",
    "docs/recipes/several-tasks.md": r"\[\(3,\), \(5,\), \(3,\)\]",
    "docs/recipes/deploy.md": r"\(7, 10\) 10",
    "docs/recipes/transmiter.md": r"tensor\(0\.\d+\)",
}


# What stands for the reader's own on pages, and what is like it here.
OWN_NAMES = {"my_plugin": "convpass", "my_aggregator": "uniform", "my_task": "classification", "my_source": "scenes"}


class Block(NamedTuple):
    """A block of code on a page."""

    page: str
    number: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """Returns what a shell would run."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "bash" else []
        return [" ".join(line.split(" #")[0].split()) for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: str) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [Block(page, number, *each) for number, each in enumerate(found)]


def every(language: str) -> list[pytest.param]:
    found = (block for page in PAGES for block in blocks(page) if block.language == language)
    return [pytest.param(block, id=f"{block.page}-{block.number}") for block in found]


def ask_the_closed_model():
    """Writes the tables that a page asks a closed model for."""
    for split in ("train", "test"):
        cache = LogitCache.open(f"caches/strong/{split}")
        names = [*Path("classes.txt").read_text().splitlines(), *Path("aux.txt").read_text().splitlines()]
        asked = Path(f"ask_{split}.txt").read_text().splitlines()
        with Path(f"closed_{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", *names])
            table.writerows([name, *row] for name, row in zip(asked, cache.logits().tolist(), strict=True))


def run_command(command: str) -> None:
    if "closed_train.csv" in command:
        ask_the_closed_model()
    trains = re.match("vimlight (fit|test|predict|cache build)", command)
    extra = next((options for name, options in QUICK.items() if trains and name in command), "")
    main([*shlex.split(command)[1:], *extra.split()])


def are_predictions():
    assert Path("digits.csv").read_text().startswith("id,true,label,p_0")


def are_adapters_that_do_not_harm():
    """Checks what the recipe is for: nothing that carries the tuning over makes the strong model worse."""
    assert TransMiter.load("closed.safetensors").card.model == "closed"
    evaluation = json.loads(Path("results.json").read_text())
    assert evaluation["protocol"] == "base_to_novel"
    found = {row["method"]: row["mean"] for row in evaluation["summary"] if row["metric"] == "harmonic"}
    for method in ("transmiter", "safe"):
        assert found[method] >= found["target_zero_shot"] - 0.005, found


# What must be there at the end.
LEAVES = {"a zoo": are_predictions, "a transfer": are_adapters_that_do_not_harm}


def train_what_is_deployed():
    """Leaves the checkpoint of a run of one block and two modules, since a graph takes as long as it has nodes."""
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    backbone = vl.create_backbone("vit_tiny_patch16_224", **settings)
    torch.save(backbone.model.state_dict(), "tiny.pt")
    for number in range(2):
        vl.Zoo("zoo").add(f"{number}", shaken(vl.create_plugin("convpass", backbone), 0.5, number))
    Path("runs/fit/version_1").mkdir(parents=True)
    chosen = json.dumps({"name": "vit_tiny_patch16_224", "checkpoint": "tiny.pt", **settings})
    run_command(f"vimlight fit --config @downstream/digits --model.backbone '{chosen}'")


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
def test_pages_run_from_top_to_bottom(story, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if story == "a deployment":
        train_what_is_deployed()
    done, names = set(), {}
    for block in (block for page in STORIES[story] for block in blocks(page)):
        for command in (each for each in block.commands() if each.startswith("vimlight") and each not in done):
            run_command(command)
            done.add(command)
        if block.language == "python":
            capsys.readouterr()
            exec(block.text, names)
            assert re.fullmatch(PRINTS.get(block.page, "") + "\n?", capsys.readouterr().out)
    if story in LEAVES:
        LEAVES[story]()


class _UnderstoodError(Exception):
    pass


def understand(command: str) -> None:
    """Checks that a command line of vimlight names what there is; files that it reads may be somebody's own."""
    words = [resolved(OWN_NAMES.get(word, word)) for word in shlex.split(command)[1:]]
    if words[0] == "--trusted-modules":
        words = words[2:]
    for option, file in pairwise(words):
        if option in ("--config", "--ckpt_path") and not Path(file).exists():
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text("{}")
    if words[0] in TRAINING or words[:2] == ["cache", "build"]:
        (check_training if words[0] in TRAINING else check_images)(words)
        return
    parse = Parser.parse_known_args

    def parsed(self, *given):
        options, beyond = parse(self, *given)
        # The command's own parser, behind those of its subcommands. A ranking takes what `fit` takes.
        if self.add_help and self.prog == f"vimlight {words[0]}":
            assert not beyond or options.command == "rank", beyond
            raise _UnderstoodError
        return options, beyond

    with mock.patch.object(Parser, "parse_known_args", parsed), pytest.raises(_UnderstoodError):
        main(words)


@pytest.mark.parametrize("block", every("bash"))
def test_commands_are_understood(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    makefile = (ROOT / "Makefile").read_text()
    for command in block.commands():
        program, *words = shlex.split(command)
        if program == "vimlight":
            if block.page not in {*ELSEWHERE, *(page for pages in STORIES.values() for page in pages)}:
                understand(command)
        elif program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), command
        elif program == "python" and words[:1] == ["-m"]:
            assert find_spec(words[1]), command


@pytest.mark.parametrize("name", config_names())
def test_what_shipped_configs_say_of_their_use_is_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comments = "\n".join(re.findall(r"^# ?(.*)", Path(resolved(f"@{name}")).read_text(), re.MULTILINE))
    commands = re.findall(r"^ +(?:torchrun \S+ \S+ -m )?(vimlight .*)", comments.replace("\\\n", " "), re.MULTILINE)
    assert any(name in command for command in commands)
    for command in commands:
        understand(command.split(" #")[0])


@pytest.mark.parametrize("block", every("python"))
def test_python_parses_and_imports_what_there_is(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "vimlight":
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or find_spec(f"{node.module}.{name.name}"), name.name


@pytest.mark.parametrize("block", every("yaml"))
def test_pieces_of_configs_are_accepted(block, tmp_path):
    found = yaml.safe_load(block.text)
    if not {"model", "data", "trainer"} & found.keys():
        return
    (tmp_path / "piece.yaml").write_text(block.text)
    check_training(["fit", "--config", resolved("@downstream/digits"), "--config", str(tmp_path / "piece.yaml")])


@pytest.mark.parametrize("page", ELSEWHERE)
def test_pages_that_other_tests_run_are_named_there(page):
    assert page in (ROOT / "tests" / ELSEWHERE[page]).read_text()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8192


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(r"\]\((?!https:)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link


OWN = [block for block in blocks("docs/recipes/own-types.md") if block.language == "python"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    # What the blocks register is taken back, or tests that come later would find it.
    for registry in (AGGREGATORS, PLUGINS, SOURCES):
        monkeypatch.setattr(registry, "_entries", {name: registry[name] for name in registry})
    names = [re.match(r"# (\w+)\.py", block.text)[1] for block in OWN]
    for name, block in zip(names, OWN, strict=True):
        (tmp_path / f"{name}.py").write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    yield [importlib.import_module(name) for name in names]
    for name in names:
        sys.modules.pop(name, None)


def test_a_module_type_an_aggregator_and_a_data_set_of_ones_own(own):
    assert len(own) == 3
    backbone = vl.create_backbone("test_vit", img_size=32)
    plugins = [vl.create_plugin("scale", backbone) for _ in range(2)]
    images = torch.randn(2, 3, 32, 32)
    for plugin in plugins:
        for parameter in plugin.parameters():
            torch.nn.init.normal_(parameter)
    model = vl.aggregate(backbone, plugins, how="first_only")
    with vl.attach(backbone, plugins[0]):
        expected = backbone(images)
    assert_near(model(images), expected, 1e-4)
    data = vl.DownstreamDataModule("noise", {"count": 40}, shots=2, preprocessing=backbone.preprocessing)
    assert data.class_names == ["even", "odd"]
    assert len(data.arrays("train")[0]) == 4
