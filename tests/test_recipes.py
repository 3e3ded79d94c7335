"""The shipped plans of comparisons: every name in them is known, and what they promise is in them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import timm
import torchvision
import yaml
from torchvision import datasets

from vimlight.aggregation import AGGREGATORS
from vimlight.data import AUGMENTATIONS
from vimlight.data.arguments import arguments_of
from vimlight.data.coop_files import DATASETS
from vimlight.data.sources.vtab1k import GROUPS
from vimlight.plugins import PLUGINS

FOLDER = Path(__file__).parent.parent / "configs" / "compare"
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
    assert f"vimlight compare configs/compare/{recipe.name} --out" in text
    assert max(map(len, text.splitlines())) <= 120


def test_every_name_is_known(recipe):
    plan = plan_of(recipe)
    assert timm.is_model_pretrained(plan["backbone"]["name"])
    assert plan["plugin"]["kind"] in PLUGINS
    for task in plan["midstream"] + plan["downstream"]:
        takes = {argument.name: argument for argument in arguments_of(task["dataset"])}
        assert set(task["dataset_args"]) <= set(takes)
        assert {name for name, argument in takes.items() if argument.required} <= set(task["dataset_args"])
        assert task.get("augment", "none") in AUGMENTATIONS
        if task["dataset"] == "torchvision":
            assert hasattr(datasets, task["dataset_args"]["name"]), f"{torchvision.__version__} lacks it"


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
    sets = plan_of(FOLDER / "coop_clip_b16.yaml")["downstream"]
    assert [task["dataset_args"]["dataset"] for task in sets] == list(DATASETS)


def test_methods_have_names(recipe):
    known = {*AGGREGATORS, "last_feature", "module_alone", "fresh_module", "random", "shuffled", "lora_alone"}
    assert set(plan_of(recipe)["methods"]) <= known
