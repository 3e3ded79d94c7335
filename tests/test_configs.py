"""Every shipped config, end to end, on tiny data and a tiny backbone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_boxes import annotation, voc_object, write_coco, write_voc
from tiny_training import VIT, fill

from vimlight.backbone import create_backbone
from vimlight.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
# Those of the room `transmiter`, plans of comparisons and sweeps are run by their own tests.
ELSEWHERE = ("transmiter", "compare", "sweeps")
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml") if path.parent.name not in ELSEWHERE)
BACKBONE = json.dumps({"name": "vit_tiny_patch16_224", **VIT})
SMALL = [
    f"--model.backbone={BACKBONE}",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.enable_progress_bar=false",
]
SCENES = "--data.dataset_args={task: %s, train: %d, test: 16, size: 32}"
# So low a threshold that something is found after one epoch.
DETECTION = "{kind: detection, width: 32, levels: 2, convs: 1, score_threshold: 0.001}"
# Scenes of each kind of task.
KINDS = {
    "segmentation": "segments", "depth": "depth", "regression": "geometry", "ordinal": "amounts", "retrieval": "shapes",
}  # fmt: skip
OVERRIDES = {
    **{f"midstream/{kind}.yaml": [SCENES % (task, 40)] for kind, task in KINDS.items()},
    **{f"downstream/{kind}.yaml": [SCENES % (f"odd_{task}", 80), "--data.shots=2"] for kind, task in KINDS.items()},
    "downstream/multilabel.yaml": [SCENES % ("odd_attributes", 200), "--data.shots=2"],
    "midstream/letters.yaml": [SCENES % ("letters", 60)],
    "midstream/last_blocks.yaml": [SCENES % ("shapes", 60)],
    "midstream/attributes.yaml": [SCENES % ("attributes", 60)],
    "midstream/image_folder.yaml": [
        "--data.dataset_args={root: flowers}", "--data.num_workers=0", "--trainer.precision=bf16-mixed",
    ],
    "downstream/digits.yaml": ["--data.shots=2", "--data.test_limit=20", "--trainer.check_val_every_n_epoch=1"],
    "downstream/linear_with_extra_module.yaml": [SCENES % ("odd_shapes", 160), "--data.shots=2"],
    "midstream/detection.yaml": [SCENES % ("objects", 60), f"--model.task={DETECTION}"],
    "midstream/detection_coco.yaml": [
        "--data.dataset_args={root: coco, train: annotations/train.json, train_images: train, test: null}",
        "--data.num_workers=0", "--trainer.precision=bf16-mixed", f"--model.task={DETECTION}",
    ],
    "downstream/detection.yaml": [
        SCENES % ("odd_objects", 160), "--data.shots=2", "--trainer.check_val_every_n_epoch=1",
        f"--model.task={DETECTION}",
    ],
    "downstream/detection_voc.yaml": [
        "--data.dataset_args={root: VOC}", "--data.num_workers=0", "--trainer.precision=bf16-mixed",
        f"--model.task={DETECTION}",
    ],
}  # fmt: skip
# These write COCO results, one row an object.
DETECTIONS = [name for name in OVERRIDES if "detection" in name]
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
    boxes = [annotation(n, 10 * n, (3, 7, 90)[n % 3], [2, 3, 20, 9]) for n in range(1, 13)]
    write_coco(Path("coco"), "train", 12, boxes)
    dog = [voc_object("dog", (2, 3, 30, 12))]
    write_voc(Path("VOC"), {"train": [dog] * 6, "val": [dog, []]})
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
        assert new == {f"{module}.safetensors"}
    else:
        assert not new
        assert Path("runs/fit/version_0/gates.csv").is_file()
    run("test", *common, "--ckpt_path", checkpoints[-1])
    if name in DETECTIONS:
        predict_boxes(*common, "--ckpt_path", checkpoints[-1])
        assert "test/map" in capsys.readouterr().out
        return
    run("predict", *common, "--ckpt_path", checkpoints[-1], "--predictions.path=out.csv")
    with Path("out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    files = [Path(row["file"]) for row in rows if "file" in row]
    assert all(path.is_file() for path in files)
    assert len(set(files)) in (0, len(rows))
    assert all(0 <= float(value) <= 1 for row in rows for key, value in row.items() if key.startswith("p_"))
    assert "test/loss" in capsys.readouterr().out


def predict_boxes(*words):
    """Writes results and loads them with pycocotools, as its evaluation does."""
    from pycocotools.coco import COCO

    run("predict", *words, "--predictions.path=out.json")
    rows = json.loads(Path("out.json").read_text())
    assert rows
    known = COCO()
    known.dataset = {
        "images": [{"id": name} for name in {row["image_id"] for row in rows}],
        "annotations": [],
        "categories": [{"id": number} for number in {row["category_id"] for row in rows}],
    }
    known.createIndex()
    assert len(known.loadRes("out.json").anns) == len(rows)
    assert all(0 <= row["score"] <= 1 and min(row["bbox"]) >= 0 for row in rows)
    return rows


@pytest.mark.slow
def test_results_on_coco_files_fit_their_annotations(workplace):
    """Image ids are those of the file, category ids have its gaps, and boxes lie in the images as they are on disk."""
    name = "midstream/detection_coco.yaml"
    common = ["--config", CONFIGS / name, *SMALL, *OVERRIDES[name]]
    run("fit", *common)
    rows = predict_boxes(*common, "--ckpt_path", next(Path("runs/fit/version_0/checkpoints").glob("*.ckpt")))
    truth = json.loads(Path("coco/annotations/train.json").read_text())
    images = {image["id"]: image for image in truth["images"]}
    assert {row["image_id"] for row in rows} <= set(images)
    assert {row["category_id"] for row in rows} <= {3, 7, 90}
    for row in rows:
        left, top, width, height = row["bbox"]
        assert left + width <= images[row["image_id"]]["width"] + 0.01
        assert top + height <= images[row["image_id"]]["height"] + 0.01
    assert max(row["bbox"][0] + row["bbox"][2] for row in rows) > 32


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
    elif name == "loggers/mlflow.yaml":
        (params,) = Path("runs/mlflow").rglob("params")
        assert (params / "data/init_args/shots").read_text() == "2"
        assert (params.parent / "tags" / "mlflow.runName").read_text() == "ens_moe digits 2-shot, seed 0"
    else:
        wandb.finish()
        # Another process writes the file; it has ended once this returns.
        wandb.teardown()
        files = list(Path().rglob("*.wandb"))
        assert files
        text = b"".join(path.read_bytes() for path in files)
        for shown in (b"val/predictions", b"val/confusion", b"gates", b"shots", b"val/accuracy"):
            assert shown in text, f"W&B was not shown {shown.decode()}"
