"""The command line in process: runs, checkpoints, and every mistake in one or two lines."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from PIL import Image
from tiny_training import VIT, fill, tiny_backbone

from vimlight.backbone import create_backbone
from vimlight.cli import guarded, main
from vimlight.commands.train import TrainingCLI
from vimlight.data import SOURCES, Source
from vimlight.files.checkpoint_files import load_checkpoint_file
from vimlight.plugins import create_plugin
from vimlight.zoo import Zoo
from vimlight.zoo.sharing import read_lock

BACKBONE = {"name": "vit_tiny_patch16_224", **VIT}
MODULE = {
    "class_path": "MidstreamModule",
    "init_args": {"backbone": BACKBONE, "plugin": {"kind": "convpass", "hidden": 2}, "name": "fresh"},
}
AGGREGATE = {"class_path": "DownstreamModule", "init_args": {"backbone": BACKBONE}}
SCENES = {
    "class_path": "MidstreamDataModule",
    "init_args": {"dataset": "scenes", "dataset_args": {"task": "shapes", "train": 30, "test": 8, "size": 32}},
}
DIGITS = {"class_path": "DownstreamDataModule", "init_args": {"dataset": "digits", "shots": 2, "test_limit": 20}}
TRAINER = {
    "max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A directory with the configs `midstream.yaml` and `downstream.yaml` and a zoo of two modules."""
    folder = tmp_path_factory.mktemp("furnished")
    pl.seed_everything(0, verbose=False)
    fill(folder / "zoo", create_backbone(**BACKBONE), {"one": 0.1, "two": 0.3})
    for name, model, data in (("midstream", MODULE, SCENES), ("downstream", AGGREGATE, DIGITS)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": TRAINER}))
    return folder


@pytest.fixture
def workplace(furnished, tmp_path, monkeypatch):
    """A copy of that directory, where the test runs, with the random state that its backbone was drawn from."""
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    pl.seed_everything(0, verbose=False)
    return tmp_path


def run(*words):
    main([str(word) for word in words])


def refused(capsys, *words):
    """Runs what must be refused; returns what was said."""
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vimlight: ")]
    assert len(said) == 1
    assert len(said[0]) < 400
    for noise in ("Namespace(", "<class", "typing.", "Traceback", "Parser key"):
        assert noise not in said[0]
    return said[0]


def files():
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def test_a_data_set_that_fails_is_not_taken_for_one_without_classes(workplace, capsys):
    @SOURCES.register("broken", replace=True)
    def broken() -> Source:
        return object().names

    words = ["fit", "--config", "midstream.yaml", "--data.dataset=broken", "--data.dataset_args={}"]
    said = refused(capsys, *words)
    del SOURCES._entries["broken"]
    assert "MidstreamDataModule.source failed: 'object' object has no attribute 'names'; --debug shows where" in said


MISTAKES = {
    "command": (["fitt"], "unknown command 'fitt'; did you mean 'fit'"),
    "no config": (["fit"], "missing 'data', 'model'"),
    "config file": (
        ["fit", "--config", "midstreem.yaml"],
        "'midstreem.yaml' does not exist; did you mean 'midstream.yaml'",
    ),
    "model class": (
        ["--model=MidstreamModul"],
        "model: unknown class 'MidstreamModul'; did you mean 'MidstreamModule'",
    ),
    "data class": (["--data=MidstreamData"], "data: unknown class 'MidstreamData'; did you mean 'MidstreamDataModule'"),
    "class of a module that is gone": (
        ["--model=vimlight.midstream.MidstreamModule"],
        "model: unknown class 'vimlight.midstream.MidstreamModule'; did you mean 'MidstreamModule'",
    ),
    "optimiser class": (["--model.optimizer=torch.optim.SGDD"], "unknown class 'torch.optim.SGDD'; did you mean 'SGD'"),
    "schedule class": (["--model.lr_scheduler=StepLRR"], "unknown class 'StepLRR'; did you mean 'StepLR'"),
    "callback class": (["--trainer.callbacks=ModelCheckpont"], "unknown class 'ModelCheckpont'; did you mean"),
    "logger class": (["--trainer.logger=WandbLoger"], "unknown class 'WandbLoger'; did you mean 'WandbLogger'"),
    "model key": (["--model.nme=x"], "unknown key 'model.nme'; did you mean 'model.init_args.name'?"),
    "data key": (["--data.batchsize=3"], "unknown key 'data.batchsize'; did you mean 'data.init_args.batch_size'?"),
    "trainer key": (["--trainer.max_epoxs=3"], "unknown key 'trainer.max_epoxs'; did you mean 'trainer.max_epochs'?"),
    "cut key": (["--trainer.max_epoch=3"], "unknown key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"),
    "top key": (["--trainr.max_epochs=3"], "unknown key 'trainr.max_epochs'; did you mean 'trainer.max_epochs'?"),
    "optimiser key": (
        ["--model.optimizer=torch.optim.SGD", "--model.optimizer.init_args.lrr=1"],
        "lrr'; did you mean 'model.init_args.optimizer.init_args.lr'?",
    ),
    "plug-in key": (["--model.plugin={kind: convpass, hiden: 3}"], "'hiden'; did you mean 'hidden'"),
    "backbone key": (["--model.backbone={nam: test_vit}"], "lack 'name'; did you mean it by 'nam'"),
    "card key": (["--model.card={licence: mit}"], "unknown card key 'licence'; did you mean 'license'"),
    "source key": (["--data.dataset_args={taks: letters}"], "'taks'; did you mean 'task'"),
    "backbone": (["--model.backbone={name: vit_tiny_patch16_225}"], "'vit_tiny_patch16_225'; did you mean 'vit_tiny_"),
    "plug-in": (["--model.plugin=convpas"], "unknown plug-in 'convpas'; did you mean 'convpass'"),
    "data set": (["--data.dataset=scene"], "unknown data set 'scene'; did you mean 'scenes'"),
    "scene task": (["--data.dataset_args={task: shaps}"], "unknown scene task 'shaps'; did you mean 'shapes'"),
    "augmentation": (["--data.augment=lite"], "unknown augmentation 'lite'; did you mean 'light'"),
    "readout": (["--model.readout=layer"], "unknown readout 'layer'; did you mean 'layers'"),
    "name in the zoo": (["--model.name=one"], "has a module 'one' already"),
    "int": (["--trainer.max_epochs=ten"], "trainer.max_epochs: expected int, got 'ten'"),
    "int of the data": (["--data.batch_size=many"], "batch_size: expected int, got 'many'"),
    "float": (["--model.warmup=lots"], "warmup: expected float, got 'lots'"),
    "int of a plug-in": (
        ["--model.plugin={kind: convpass, hidden: eight}"],
        "'hidden' of plug-in 'convpass': expected int",
    ),
    "range": (["--data.batch_size=0"], "batch_size must be at least 1, got 0"),
    "accelerator": (["--trainer.accelerator=tpuu"], "invalid accelerator name"),
    "key of a data set": (["--data.root=x"], "'data.root'; did you mean 'data.init_args.dataset_args.root'?"),
    "key of an optimiser without its class": (["--model.optimizer.lr=1"], "must be named too, by model.optimizer.clas"),
    "key of another model": (["--model.aggregator.topk=2"], "; did you mean 'model.init_args.aggregator.topk' of Down"),
    "key of the trainer": (["--max_epochs=3"], "unknown key 'max_epochs'; did you mean 'trainer.max_epochs'?"),
    "folder for a config": (["--config=zoo"], "config: 'zoo' is a directory, not a file"),
    "config file below": (["--config=zoo/one.yaml"], "config: file 'zoo/one.yaml' does not exist"),
    "words of a class": (
        ["--trainer.logger={class_path: WandbLogger, init_args: {log_model: true, offline: true}}"],
        "Providing log_model=True and offline=True is an invalid configuration",
    ),
    **{
        f"precision {name}": ([f"--trainer.precision={name}"], f"precision {name} changes the weights themselves, but")
        for name in ("16-true", "bf16-true", "64-true")
    },
    "stray word": (["letters"], "unexpected argument 'letters'"),
    "missing folder": (
        ["--data.dataset=image_folder", "--data.dataset_args={root: nowhere}"],
        "nowhere does not exist",
    ),
    "empty folder": (["--data.dataset=image_folder", "--data.dataset_args={root: empty}"], "empty"),
    "weights": (["--model.backbone={name: test_vit, checkpoint: no.safetensors}"], "'no.safetensors' does not exist"),
    "checkpoint": (["--ckpt_path", "last"], "checkpoint 'last' does not exist"),
    "predictions file": (["--predictions.path=x.txt"], "unknown suffix of a predictions file '.txt'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_nothing_behind(workplace, capsys, mistake):
    words, message = MISTAKES[mistake]
    Path("empty").mkdir()
    before = files()
    if not words[0].startswith("fit"):
        words = ["fit", "--config", "midstream.yaml", *words]
    assert message in refused(capsys, *words)
    assert {path for path in files() - before if "lightning_logs" not in path} == set()


def test_a_config_that_names_a_module_that_is_gone(workplace, capsys):
    config = {"model": {"class_path": "vimlight.midstream.MidstreamModule", "init_args": {"plugin": "lora"}}}
    Path("old.yaml").write_text(yaml.safe_dump(config))
    said = refused(capsys, "fit", "--config", "old.yaml")
    assert "model: unknown class 'vimlight.midstream.MidstreamModule'; did you mean 'MidstreamModule'?" in said


DOWNSTREAM = {
    "aggregator": (["--model.aggregator=ens_mo"], "unknown aggregator 'ens_mo'; did you mean 'ens_moe'"),
    "aggregator key": (["--model.aggregator={how: ens_moe, topk: 2}"], "'topk'; did you mean 'top_k'"),
    "int of an aggregator": (
        ["--model.aggregator={how: router, top_k: two}"],
        "'top_k' of aggregator 'router': expected int",
    ),
    "head": (["--model.head=rigde"], "unknown head 'rigde'; did you mean 'ridge'"),
    "module": (["--model.modules=[onne]"], "'onne'; did you mean 'one'"),
    "modules": (["--model.modules=one"], "modules: expected list, got 'one'"),
    "empty zoo": (["--model.zoo=nozoo"], "the zoo 'nozoo' is empty; train a module first"),
    "too few images": (["--data.shots=500"], "500"),
    "untrained": (["test"], "test needs trained weights; name them with --ckpt_path FILE"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(DOWNSTREAM))
def test_a_mistake_downstream_is_one_line(workplace, capsys, mistake):
    words, message = DOWNSTREAM[mistake]
    before = files()
    command = words.pop(0) if words == ["test"] else "fit"
    assert message in refused(capsys, command, "--config", "downstream.yaml", *words)
    assert files() == before


def damage(kind):
    path = Path("zoo/one.safetensors")
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "tampered":
        path.write_bytes(content[:-4] + b"\x00\x01\x02\x03")
    elif kind == "pickle":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "no safetensors":
        path.write_bytes(b"hello")
    else:
        path.unlink()
        Zoo("zoo").add("one", create_plugin("convpass", tiny_backbone(7)))


@pytest.mark.parametrize("kind", ["truncated", "tampered", "pickle", "no safetensors", "another backbone"])
def test_a_bad_module_is_named(workplace, capsys, kind):
    damage(kind)
    before = files()
    assert "one" in refused(capsys, "fit", "--config", "downstream.yaml")
    assert files() == before


def test_a_bad_config_file_is_named(workplace, capsys):
    cases = {
        "model: [1,\n": "no valid YAML",
        "- a\n": "must hold keys with values",
        "modle:\n  class_path: MidstreamModule\n": "unknown key 'modle.class_path'; did you mean 'model'?",
        "model:\n  class_pth: MidstreamModule\n": "unknown key 'model.class_pth'; did you mean 'model.class_path'",
        "model:\n  class_path: caf\xe9\n": "a config file is no UTF-8 in line 2, behind '  class_path: caf'; save it",
    }
    for number, (text, message) in enumerate(cases.items()):
        Path(f"{number}.yaml").write_text(text, encoding="latin-1")
        assert message in refused(capsys, "fit", "--config", f"{number}.yaml")


def test_a_corrupt_image_is_named_and_left_out_only_if_asked(workplace, capsys):
    for name, colour in (("dark", 10), ("light", 240)):
        Path("pictures", name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (20, 20), (colour, colour, number * 9)).save(f"pictures/{name}/{number}.jpg")
    broken = Path("pictures/light/3.jpg")
    broken.write_bytes(broken.read_bytes()[:200])
    own = ["--data.dataset=image_folder", "--data.dataset_args={root: pictures}"]
    assert "3.jpg" in refused(capsys, "fit", "--config", "midstream.yaml", *own)
    run("fit", "--config", "midstream.yaml", *own, "--data.skip_corrupt=true")
    assert sum(Zoo("zoo").card("fresh").samples.values()) == 11


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_no_parser_is_built_but_that_of_the_command(workplace, capsys, monkeypatch, command):
    built, build = [], TrainingCLI._prepare_subcommand_parser
    monkeypatch.setattr(
        TrainingCLI,
        "_prepare_subcommand_parser",
        lambda self, trainer, name, **options: built.append(name) or build(self, trainer, name, **options),
    )
    assert "missing 'data', 'model'" in refused(capsys, command)
    assert built == [command]


def test_debug_shows_where_a_mistake_was_made(workplace):
    from vimlight.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        run("--debug", "fit", "--config", "midstream.yaml", "--model.plugin=convpas")


def accuracy(capsys):
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "score\tvalue"
    scores = dict(row.split("\t") for row in rows)
    assert {"test/accuracy", "test/loss"} <= set(scores)
    assert max(map(len, scores.values())) <= 6
    return float(scores["test/accuracy"])


@pytest.mark.slow
def test_runs_never_overwrite_each_other(workplace, capsys):
    for version in range(2):
        run("fit", "--config", "downstream.yaml", "--seed_everything", "0", "--data.seed", version)
        config = yaml.safe_load(Path(f"runs/fit/version_{version}/config.yaml").read_text())
        assert config["data"]["init_args"]["seed"] == version
    first = yaml.safe_load(Path("runs/fit/version_0/config.yaml").read_text())
    assert first["data"]["init_args"]["seed"] == 0
    used = [(pin.name, pin.sha256) for pin in read_lock(Path("runs/fit/version_0/zoo.lock"))]
    assert used == [(name, Zoo("zoo").card(name).sha256) for name in ("one", "two")]

    # A finished run can be measured again and again, also when the zoo has grown by what does not fit.
    checkpoint = next(Path("runs/fit/version_0/checkpoints").glob("*.ckpt"))
    capsys.readouterr()
    run("test", "--config", "downstream.yaml", "--ckpt_path", checkpoint)
    before = accuracy(capsys)
    Zoo("zoo").add("stranger", create_plugin("lora", tiny_backbone(9)))
    run("test", "--config", "downstream.yaml", "--ckpt_path", checkpoint)
    assert accuracy(capsys) == before

    predict = ["predict", "--config", "downstream.yaml", "--ckpt_path", checkpoint, "--predictions.path=out.json"]
    run(*predict)
    rows = json.loads(Path("out.json").read_text())
    assert len(rows) == 20
    assert "out.json" in refused(capsys, *predict)
    run(*predict, "--predictions.overwrite=true")


@pytest.mark.slow
def test_the_command_line_wins_over_a_checkpoint(workplace):
    settings = ["--config", "midstream.yaml", "--model.optimizer=torch.optim.SGD", "--model.lr_scheduler=StepLR"]
    settings += ["--model.lr_scheduler.step_size=100", "--model.name=null"]
    run("fit", *settings, "--model.optimizer.lr=0.01")
    checkpoint = next(Path("runs/fit/version_0/checkpoints").glob("*.ckpt"))
    run("fit", *settings, "--model.optimizer.lr=0.003", "--trainer.max_epochs=2", "--ckpt_path", checkpoint)
    resumed = next(Path("runs/fit/version_1/checkpoints").glob("*.ckpt"))
    state = torch.load(resumed, weights_only=True)
    assert state["epoch"] == 1
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.003)


def test_a_checkpoint_that_is_none_is_refused(workplace, capsys):
    Path("garbage.ckpt").write_bytes(b"nothing of the kind")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    torch.save({"vimlight": Path}, "code.ckpt")
    command = ["test", "--config", "downstream.yaml", "--ckpt_path"]
    assert "'garbage.ckpt' is damaged or was not written by torch.save" in refused(capsys, *command, "garbage.ckpt")
    assert "'foreign.ckpt' was not written by vimlight" in refused(capsys, *command, "foreign.ckpt")
    assert "'code.ckpt' is damaged, or holds more than tensors" in refused(capsys, *command, "code.ckpt")
    Path("garbag").mkdir()
    assert "did you mean 'garbage.ckpt'" in refused(capsys, *command, "garbag.ckpt")


@pytest.mark.slow
def test_a_run_says_little_and_what_it_left(workplace):
    words = ["fit", "--config", "midstream.yaml", "--trainer.enable_progress_bar=true"]
    config = yaml.safe_load(Path("midstream.yaml").read_text())
    del config["trainer"]["enable_model_summary"]
    Path("midstream.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run([sys.executable, "-m", "vimlight", *words], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    first, *lines = done.stderr.splitlines()
    assert re.fullmatch(r"parameters: [\d,]+ trained, [\d,]+ frozen; on cpu", first)
    assert lines[0] == "module 'fresh' is in the zoo 'zoo'"
    assert re.fullmatch(r"written to runs/fit/version_0: .*checkpoints/last.ckpt, .*config.yaml.*", lines[-1])
    assert len(lines) == 2


@pytest.mark.slow
def test_without_loggers_and_in_a_trial(workplace):
    run("fit", "--config", "downstream.yaml", "--trainer.fast_dev_run=true")
    assert not Path("runs").exists()
    run("fit", "--config", "downstream.yaml", "--trainer.logger=false", "--trainer.default_root_dir=plain")
    assert not Path("runs").exists()


def test_a_csv_logger_of_ones_own_is_kept(workplace):
    logger = "--trainer.logger={class_path: CSVLogger, init_args: {save_dir: elsewhere, name: mine}}"
    run("fit", "--config", "downstream.yaml", logger)
    assert Path("elsewhere/mine/version_0/metrics.csv").is_file()
    assert Path("elsewhere/mine/version_0/config.yaml").is_file()
    assert not Path("runs").exists()


def test_ctrl_c_is_no_traceback(capsys):
    def program():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        guarded(program)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "vimlight: interrupted\n"
    with pytest.raises(KeyboardInterrupt):
        guarded(program, debug=True)


@pytest.mark.slow
def test_a_zoo_is_ranked_as_a_run_ranks_it_and_nothing_is_written(workplace, capsys):
    before = sorted(Path().rglob("*"))
    run("zoo", "rank", "--config", "downstream.yaml", "--json", "--data.shots", 3)
    ranked = {row["features"]: row["left_out_error"] for row in json.loads(capsys.readouterr().out)}
    assert sorted(Path().rglob("*")) == before
    run("zoo", "rank", "--config", "downstream.yaml", "--zoo", "zoo", "--data.shots", 3)
    header, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == [
        "rank", "module", "left-out error", "less than bare", "images", "LogME", "parameters", "MFLOP"
    ]  # fmt: skip
    cost = {name: (int(parameters), float(mflop)) for _, name, *_, parameters, mflop in rows}
    assert cost.pop("bare backbone") == (0, 0)
    assert all(parameters > 0 and mflop > 0 for parameters, mflop in cost.values())
    assert {name: error for _, name, error, *_ in rows} == {name: f"{error:.4f}" for name, error in ranked.items()}
    run("fit", "--config", "downstream.yaml", "--data.shots", 3)
    checkpoint = next(Path("runs/fit/version_0/checkpoints").glob("*.ckpt"))
    found = load_checkpoint_file(checkpoint)["vimlight"]["ranking"]
    assert ranked == pytest.approx({"bare backbone": found["bare"], **found["modules"]})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "midstream.yaml"], "MidstreamModule ranks no zoo; take the config of a DownstreamModule"),
        (["--config", "downstream.yaml", "--model.start", "equal"], "ranks no modules: start: ranking and a zoo"),
        (["--config", "downstream.yaml", "--zoo", "no_zoo"], "the zoo 'no_zoo' is empty"),
        (["--config", "downstream.yaml", "--data.shotz", "3"], "did you mean 'data.init_args.shots'?"),
    ],
)
def test_what_cannot_be_ranked_is_one_line(workplace, capsys, words, message):
    assert message in refused(capsys, "zoo", "rank", *words)
