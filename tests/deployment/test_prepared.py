"""A model knows how the images were prepared that it learnt from: its file says so, and data prepare others alike."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from tiny_run import write_config
from torchvision import transforms

from vimlight.backbone import create_backbone
from vimlight.cli import main
from vimlight.data import DownstreamDataModule, MidstreamDataModule
from vimlight.deployment import deploy, load_run
from vimlight.errors import ConfigError
from vimlight.files.exported import CARD, deviation
from vimlight.training.midstream import MidstreamModule

CKPT = "runs/fit/version_0/checkpoints/last.ckpt"


def trainer(**options):
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator="cpu", devices=1, logger=False, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of rough images that are no squares, two classes."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(16):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        rough = generator.integers(0, 256, (9, 13 + number, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((60 + 9 * number, 90)).save(file)
    return str(folder)


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """The directory of a finished run on squashed images of another size than the backbone's."""
    arguments = {"backbone": {"name": "test_resnet"}, "aggregator": "none", "readout": "last"}
    data = {"dataset": "image_folder", "dataset_args": {"root": photos}, "shots": 3, "image_size": 48}
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.manual_seed(0)
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), "backbone.pth")
        arguments["backbone"]["checkpoint"] = str(folder / "backbone.pth")
        write_config("run.yaml", arguments, {**data, "resize": "squash"})
        main(["fit", "--config", "run.yaml"])
    return folder


@pytest.fixture
def workplace(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return finished


def predict(*words):
    """The probabilities of the test images, by their ids, as the data module prepares them."""
    out = Path("predictions.csv")
    main(["predict", "--config", "run.yaml", "--ckpt_path", CKPT, "--predictions.path", str(out),
          "--predictions.overwrite", "true", *words])  # fmt: skip
    with out.open() as file:
        return {row["id"]: torch.tensor([float(row["p_a"]), float(row["p_b"])]) for row in csv.DictReader(file)}


def by_hand(card, file):
    """An image that is prepared as a card says, with what everybody has."""
    looks = card["preprocessing"]
    assert (looks["crop_mode"], looks["crop_pct"]) == ("squash", 1.0)
    interpolation = transforms.InterpolationMode(looks["interpolation"])
    steps = [transforms.Resize(looks["size"], interpolation), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize(looks["mean"], looks["std"])])(Image.open(file))[None]


def program(file):
    extra = {CARD: ""}
    loaded = torch.export.load(file, extra_files=extra).module()
    return json.loads(extra[CARD]), loaded


def onnx(file):
    session = pytest.importorskip("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["vimlight"])
    return card, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def timm_model(file):
    with safe_open(file, "pt") as content:
        about = content.metadata()
    overlay = json.loads(about["pretrained_cfg"])
    model = timm.create_model("test_resnet", num_classes=2, checkpoint_path=file, pretrained_cfg_overlay=overlay)
    card, config = json.loads(about["vimlight"]), timm.data.resolve_model_data_config(model)
    assert [3, *card["preprocessing"]["size"]] == list(config["input_size"])
    for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
        assert card["preprocessing"][name] == config[name]
    return card, model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "load"), [(".safetensors", timm_model), (".pt2", program), (".onnx", onnx)])
@torch.no_grad()
def test_images_prepared_by_the_card_alone(workplace, photos, suffix, load):
    main(["export", "--ckpt", CKPT, "--out", f"model{suffix}", "--overwrite"])
    card, model = load(f"model{suffix}")
    assert card["preprocessing"]["size"] == [48, 48]
    for name, expected in predict().items():
        found = model(by_hand(card, Path(photos, name))).softmax(dim=1)[0]
        assert deviation(found, expected) < 1e-3


@pytest.mark.slow
def test_the_command_line_prepares_images_as_those_learnt_from(workplace, recwarn):
    usual = predict()
    config = yaml.safe_load(Path("run.yaml").read_text())
    for setting in ("image_size", "resize"):
        del config["data"]["init_args"][setting]
    recwarn.clear()
    Path("plain.yaml").write_text(yaml.safe_dump(config))
    main(["predict", "--config", "plain.yaml", "--ckpt_path", CKPT, "--predictions.path", "again.csv"])
    assert Path("again.csv").read_text() == Path("predictions.csv").read_text()
    assert not [warning for warning in recwarn if "prepared otherwise" in str(warning.message)]
    with pytest.warns(UserWarning, match=r"prepared otherwise .*: size is \(64, 64\), not \(48, 48\); leave"):
        larger = predict("--data.image_size", "64")
    assert not all(torch.equal(larger[name], usual[name]) for name in usual)


ASKED = {
    "nothing": ({}, None),
    "the same": ({"image_size": 48, "resize": "squash"}, None),
    "another size": ({"image_size": 64}, r"prepared otherwise .*: size is \(64, 64\), not \(48, 48\); leave"),
    "another way": ({"resize": "pad"}, "crop_mode is border, not squash; leave image_size and resize out of"),
}


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize("case", ASKED)
def test_images_are_prepared_as_those_learnt_from_unless_asked_otherwise(workplace, photos, recwarn, case, command):
    settings, warning = ASKED[case]
    model, data = load_run(CKPT), DownstreamDataModule("image_folder", {"root": photos}, shots=3, **settings)
    getattr(trainer(), command)(model, data)
    assert data.preprocessing.size == ((64, 64) if case == "another size" else (48, 48))
    said = [str(found.message) for found in recwarn if "prepared otherwise" in str(found.message)]
    assert len(said) == (warning is not None)
    assert all(re.search(warning, text) for text in said)


def test_a_run_knows(workplace):
    model = load_run(CKPT)
    assert (model.preprocessing.size, model.preprocessing.crop_mode) == ((48, 48), "squash")
    assert model.backbone.preprocessing.size == (160, 160)
    assert deploy(model).card["preprocessing"] == {
        "size": [48, 48], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
        "crop_pct": 1.0, "crop_mode": "squash",
    }  # fmt: skip
    content = torch.load(CKPT, weights_only=True)
    del content["vimlight"]["preprocessing"]
    # As earlier versions wrote them.
    model.prepared = None
    model.on_load_checkpoint(content)
    assert model.preprocessing == model.backbone.preprocessing


def test_what_transparent_pixels_lay_over_is_known(photos, recwarn):
    backbone = create_backbone("test_resnet")
    model, loaded = (MidstreamModule(backbone, "lora", class_names=["a", "b"]) for _ in range(2))
    settings = {"dataset": "image_folder", "dataset_args": {"root": photos}, "image_size": 48}
    trainer(fast_dev_run=1).fit(model, MidstreamDataModule(**settings, background="#204060"))
    assert deploy(model).card["background"] == "#204060"
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    assert loaded.background is None
    loaded.on_load_checkpoint({**checkpoint, "state_dict": {}})
    assert loaded.background == "#204060"
    trainer(fast_dev_run=1).test(loaded, MidstreamDataModule(**settings, background="#204060"))
    assert not [found for found in recwarn if "transparent pixels" in str(found.message)]
    with pytest.warns(UserWarning, match="lie over white, but over #204060 in the images .* set background: '#204060'"):
        trainer(fast_dev_run=1).test(loaded, MidstreamDataModule(**settings))


@pytest.mark.parametrize("resize", [None, "crop", "squash", "pad"])
def test_pixels_by_what_the_model_knows(photos, resize):
    model = MidstreamModule({"name": "test_resnet"}, "lora", class_names=["a", "b"])
    data = MidstreamDataModule("image_folder", {"root": photos}, image_size=(48, 56), resize=resize)
    trainer(fast_dev_run=1).fit(model, data)
    card = json.loads(json.dumps(model.preprocessing.as_dict()))
    by_timm = timm.data.create_transform((3, *card.pop("size")), is_training=False, **card)
    std = torch.tensor(card["std"])[:, None, None]
    for batch in data.batches("test"):
        for name, image in zip(batch["id"], batch["image"], strict=True):
            assert ((image - by_timm(Image.open(Path(photos, name)))) * std).abs().max() <= 2.01 / 255


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_predictions_in_images_need_all_of_them(resize):
    data = MidstreamDataModule(
        "scenes", {"task": "segments", "train": 12, "test": 4, "size": 32}, image_size=32, resize=resize
    )
    backbone = {"name": "test_resnet"}
    model = MidstreamModule(backbone, "lora", kind=data.kind, class_names=data.class_names)
    with pytest.raises(ConfigError, match=r"a segmentation task .* whole images, .* crop_pct [\d.]+; set resize: sq"):
        trainer().predict(model, data)
