"""The shipped plans of comparisons: what they name and promise, and whole runs on made-up data in their layouts."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import yaml
from PIL import Image
from tiny_boxes import voc_object, write_voc
from tiny_layouts import write_coop, write_vtab
from tiny_training import VIT

from vimlight import cli
from vimlight.backbone import create_backbone
from vimlight.comparison.reading import read_plan
from vimlight.data import load_source
from vimlight.data.coop_files import DATASETS
from vimlight.data.sources.vtab1k import GROUPS
from vimlight.errors import DataError

FOLDER = Path(__file__).parents[2] / "configs" / "compare"
RECIPES = sorted(FOLDER.glob("*_b16.yaml"))


def plan_of(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request):
    return request.param


def test_there_are_four():
    assert [path.stem for path in RECIPES] == ["coop_clip_b16", "vtab1k_vit_b16", "zoo_clip_b16", "zoo_dinov3_b16"]


def test_a_recipe_says_how_to_run_it(recipe):
    text = recipe.read_text()
    assert text.startswith("# ")
    assert f"vimlight compare @compare/{recipe.stem} --out" in text
    assert max(map(len, text.splitlines())) <= 120


def test_every_name_in_it_is_known(recipe, tmp_path):
    plan = read_plan(recipe)
    for arguments in plan.backbones.values():
        assert timm.is_model_pretrained(arguments["name"])
    for task in (*plan.midstream, *plan.downstream):
        if task.dataset == "torchvision":
            # It would be downloaded, so all arguments are right.
            with pytest.raises(DataError, match="set download: true where the network may be used"):
                load_source("torchvision", {**task.dataset_args, "root": str(tmp_path), "download": False})


def test_images_can_be_normalised_as_published():
    text = (FOLDER / "vtab1k_vit_b16.yaml").read_text()
    overlay = yaml.safe_load(re.search(r"pretrained_cfg_overlay: (\{.*\})", text)[1])
    backbone = create_backbone("vit_tiny_patch16_224", pretrained=False, pretrained_cfg_overlay=overlay, **VIT)
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)
    assert backbone.preprocessing.std == (0.229, 0.224, 0.225)


def test_midstream_is_broad_and_shares_no_images_with_downstream(recipe):
    plan = plan_of(recipe)
    assert len(plan["midstream"]) >= 10
    assert {"torchvision", "voc_segmentation", "voc_detection"} <= {task["dataset"] for task in plan["midstream"]}
    names = [task["name"] for task in plan["midstream"] + plan["downstream"]]
    assert len(names) == len(set(names))
    # What torchvision calls the data sets that VTAB-1k and CoOp have too.
    same = {
        "cifar": "CIFAR100", "caltech101": "Caltech101", "dtd": "DTD", "oxford_flowers102": "Flowers102",
        "oxford_iiit_pet": "OxfordIIITPet", "svhn": "SVHN", "sun397": "SUN397", "patch_camelyon": "PCAM",
        "eurosat": "EuroSAT", "clevr_count": "CLEVRClassification", "kitti": "Kitti",
        "caltech-101": "Caltech101", "fgvc_aircraft": "FGVCAircraft", "food-101": "Food101", "imagenet": "ImageNet",
        "oxford_flowers": "Flowers102", "oxford_pets": "OxfordIIITPet", "stanford_cars": "StanfordCars",
        "ucf101": "UCF101",
    }  # fmt: skip
    learnt = {task["dataset_args"].get("name") for task in plan["midstream"]}
    for task in plan["downstream"]:
        assert task["dataset_args"].get("name", same.get(task["name"], "none")) not in learnt


def test_collections_are_whole():
    tasks = plan_of(FOLDER / "vtab1k_vit_b16.yaml")["downstream"]
    assert [task["name"] for task in tasks] == list(itertools.chain.from_iterable(GROUPS.values()))
    assert all(task["name"] == task["dataset_args"]["task"] for task in tasks)
    assert all(task["name"] in GROUPS[task["group"]] for task in tasks)
    sets = plan_of(FOLDER / "coop_clip_b16.yaml")["downstream"]
    assert [task["dataset_args"]["dataset"] for task in sets] == list(DATASETS)


def small(recipe, root):
    """Writes a recipe's plan for a tiny model: its own downstream data, made up, and a few modules on tiny ones."""
    plan = plan_of(recipe)
    fake = {"name": "FakeData", "arguments": {"size": 8, "image_size": [3, 20, 20], "num_classes": 2}}
    write_voc_masks(root / "data/VOCdevkit/VOC2012")
    for task in plan["midstream"] + plan["downstream"]:
        task |= {"num_workers": 0}
        if task["dataset"] == "torchvision":
            task["dataset_args"] = fake
    for task in plan["midstream"]:
        task |= {"epochs": 1, "batch_size": 4}
        if task["dataset"] == "voc_detection":
            task["task"] = {"kind": "detection", "width": 32, "levels": 2, "convs": 1}
    plan |= {
        # The same architecture, tiny and with random weights.
        "backbone": {"name": plan["backbone"]["name"].partition(".")[0], "pretrained": False, **VIT},
        "plugin": {"kind": "convpass", "hidden": 2}, "seeds": [0],
        "midstream": [plan["midstream"][0], *plan["midstream"][-2:]], "methods": ["none", "uniform", "ens_moe"],
        "accelerator": "cpu", "precision": "32-true",
    }  # fmt: skip
    if plan["shots"] != "full":
        plan["shots"] = 1
    (root / "plan.yaml").write_text(yaml.safe_dump(plan))
    return plan


def write_voc_masks(root):
    dog = [voc_object("dog", (2, 3, 30, 12))]
    write_voc(root, {"train": [dog, dog, dog], "val": [dog]})
    lists = root / "ImageSets/Segmentation"
    lists.mkdir()
    for split in ("train", "val"):
        names = (root / f"ImageSets/Main/{split}.txt").read_text().split()
        (lists / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            (root / "SegmentationClass").mkdir(exist_ok=True)
            with Image.open(root / f"JPEGImages/{name}.jpg") as image:
                mask = np.zeros((image.height, image.width), dtype=np.uint8)
            mask[2:9, 3:] = 12
            Image.fromarray(mask).save(root / f"SegmentationClass/{name}.png")


@pytest.fixture
def layouts(tmp_path, monkeypatch):
    """A working directory with some tasks of both collections."""
    monkeypatch.chdir(tmp_path)
    for task, labels in (("svhn", (3, 9)), ("eurosat", (1, 4)), ("kitti", (0, 3)), ("dsprites_loc", (2, 15))):
        first, last = labels
        write_vtab(tmp_path / "data/vtab-1k", task, train=(first, last) * 3, val=(last, first), test=(last, 1, first))
    for name in ("dtd", "fgvc_aircraft", "imagenet"):
        write_coop(tmp_path / "data/coop", name, classes=3, train=2, val=1)
    return tmp_path


def run(*words):
    cli.main(["compare", "plan.yaml", "--out", "out", *words])


@pytest.mark.usefixtures("in_process")
def test_tasks_that_are_missing_are_named_and_the_rest_is_planned(layouts, capsys):
    small(FOLDER / "vtab1k_vit_b16.yaml", layouts)
    with pytest.warns(UserWarning, match="left out") as warned:
        run("--dry-run")
    named = [str(each.message) for each in warned if "left out" in str(each.message)]
    assert len(named) == 15
    assert named[0] == "downstream task 'cifar' is left out: data/vtab-1k/cifar does not exist"
    printed = capsys.readouterr().out
    assert "svhn, all labels, seed 0, on vit_base_patch16_224: 0 of 3 done; to do: none, uniform, ens_moe" in printed
    assert "0 of 3 modules and 0 of 12 results are done" in printed


@pytest.mark.usefixtures("in_process")
def test_nothing_of_a_collection_is_there(layouts, capsys):
    small(FOLDER / "coop_clip_b16.yaml", layouts)
    (layouts / "data/coop").rename(layouts / "data/elsewhere")
    (layouts / "data/coop").mkdir()
    with pytest.raises(SystemExit):
        run("--dry-run")
    text = "none of the 11 downstream tasks is on disk; 'caltech-101' lacks data/coop/caltech-101"
    assert text in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_whole_run(layouts, recipe):
    pytest.importorskip("pycocotools")
    plan = small(recipe, layouts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
    content = json.loads(Path("out/results.json").read_text())
    there = {"vtab1k": 4, "coop": 3}.get(plan["downstream"][0]["dataset"], len(plan["downstream"]))
    assert content["whole"]
    assert len(content["records"]) == 3 * there
    assert {record["kind"] for record in content["records"]} == {"classification"}
    zoo = next(Path("out/zoo").iterdir()) / "trained"
    assert {path.stem for path in zoo.glob("*.safetensors")} >= {"masks", "boxes"}
    assert ("mean of groups" in Path("out/table.md").read_text()) == (recipe.stem == "vtab1k_vit_b16")
