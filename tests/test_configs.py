"""Every shipped config, end to end, on tiny data and a tiny backbone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_training import VIT, fill

from vimlight.backbone import create_backbone
from vimlight.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
# Those of the room `transmiter` are run by its own tests.
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml") if path.parent.name != "transmiter")
BACKBONE = json.dumps({"name": "vit_tiny_patch16_224", **VIT})
SMALL = [f"--model.backbone={BACKBONE}", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
SCENES = "--data.dataset_args={task: %s, train: %d, test: 16, size: 32}"
OVERRIDES = {
    "midstream/letters.yaml": [SCENES % ("letters", 60)],
    "midstream/attributes.yaml": [SCENES % ("attributes", 60)],
    "midstream/image_folder.yaml": [
        "--data.dataset_args={root: flowers}", "--data.num_workers=0", "--trainer.precision=bf16-mixed",
    ],
    "downstream/digits.yaml": ["--data.shots=2", "--data.test_limit=20", "--trainer.check_val_every_n_epoch=1"],
    "downstream/linear_with_extra_module.yaml": [SCENES % ("odd_shapes", 160), "--data.shots=2"],
}  # fmt: skip
LOGGERS = [name for name in NAMES if name.startswith("loggers/")]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty directory to run in, with a zoo for the tiny backbone and a folder of images."""
    monkeypatch.chdir(tmp_path)
    # The backbone of the command line gets its weights from the run's seed.
    import lightning.pytorch as pl

    pl.seed_everything(0, verbose=False)
    fill("zoo", create_backbone("vit_tiny_patch16_224", **VIT), {"one": 0.1, "two": 0.3})
    for name in ("aster", "rose"):
        Path("flowers", name).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng(number).integers(0, 255, (40, 30 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("flowers", name, f"{number}.png"))
    return tmp_path


def run(*words):
    main([str(word) for word in words])


def test_every_config_is_tested():
    assert set(NAMES) == set(OVERRIDES) | set(LOGGERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_short_and_says_how_to_run_it(name):
    lines = (CONFIGS / name).read_text().splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith("# ")
    assert any("vimlight fit --config" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OVERRIDES))
def test_fit_test_and_predict(workplace, name, capsys):
    common = ["--config", CONFIGS / name, *SMALL, *OVERRIDES[name]]
    stored = {path.name for path in Path("zoo").iterdir()}
    run("fit", *common)
    checkpoints = sorted(Path("runs/fit/version_0/checkpoints").glob("*.ckpt"))
    assert checkpoints
    config = yaml.safe_load(Path("runs/fit/version_0/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 1
    assert Path("runs/fit/version_0/metrics.csv").read_text().count("\n") >= 2
    new = {path.name for path in Path("zoo").iterdir()} - stored
    if name.startswith("midstream"):
        module = config["model"]["init_args"]["name"]
        assert new == {f"{module}.safetensors", f"{module}.head.safetensors"}
    else:
        assert not new
        assert Path("runs/fit/version_0/gates.csv").is_file()
    run("test", *common, "--ckpt_path", checkpoints[-1])
    run("predict", *common, "--ckpt_path", checkpoints[-1], "--predictions.path=out.csv")
    with Path("out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(key in ("id", "label") or 0 <= float(value) <= 1 for row in rows for key, value in row.items())
    assert "test/loss" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGGERS)
def test_loggers_work_without_a_network(workplace, name, monkeypatch):
    import socket

    import wandb

    def refuse(self, address):
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "localhost", "::1")):
            pytest.fail(f"a connection to {address} was tried")
        return connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)
    # What an earlier test of the process set up would write into that test's folder.
    wandb.teardown()
    digits = "downstream/digits.yaml"
    run("fit", "--config", CONFIGS / digits, "--config", CONFIGS / name, *SMALL, *OVERRIDES[digits])
    assert Path("runs/fit/version_0/metrics.csv").is_file(), "CSV always"
    if name == "loggers/tensorboard.yaml":
        assert list(Path("runs/tensorboard").rglob("events.*"))
    else:
        wandb.finish()
        # Another process writes the file; it has ended once this returns.
        wandb.teardown()
        files = list(Path().rglob("*.wandb"))
        assert files
        text = b"".join(path.read_bytes() for path in files)
        for shown in (b"val/predictions", b"val/confusion", b"gates", b"shots", b"val/accuracy"):
            assert shown in text, f"W&B was not shown {shown.decode()}"
