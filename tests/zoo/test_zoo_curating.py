"""`vimlight zoo diff`, `dedupe` and `merge`, run in this process as the command line runs them."""

from __future__ import annotations

import json

import pytest
import torch
from calling import refusal, run
from numerics import shaken

import vimlight.backbone
from vimlight.plugins import create_plugin, list_plugins
from vimlight.tasks import AffineHead
from vimlight.zoo import Zoo

PROBES = ("--images", 8)
DATA = ("--data", "scenes", "--args", "task=shapes", "train=30", "test=1", "size=32")


@pytest.fixture(autouse=True)
def built(monkeypatch, backbone):
    """Which backbones were asked for; what is built is the tests' own, whose random weights no name says."""
    asked = []
    monkeypatch.setattr(vimlight.backbone, "build_backbone", lambda how: asked.append(how) or backbone)
    return asked


@pytest.fixture
def zoo(tmp_path, make_module):
    """Two modules that are nearly the same, another one, and one of another type."""
    zoo = Zoo(tmp_path / "zoo")
    near = make_module()
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.mul_(1.01)
    card = {"task": "classification", "dataset": "scenes", "license": "mit", "text": "the first"}
    zoo.add("one", make_module(), card)
    zoo.add("two", near, {**card, "license": "apache-2.0", "text": "the second"})
    zoo.add("unlike", make_module(seed=1))
    zoo.add("lora", make_module("lora"))
    return zoo


@pytest.fixture
def printed(zoo, capsys):
    """Returns a function that runs a command on the zoo and returns what it prints."""

    def command(*arguments):
        run(*arguments, "--zoo", zoo.path, *PROBES)
        return capsys.readouterr().out

    return command


def test_diff(printed, built, backbone):
    cards, weights, effects = (part.splitlines() for part in printed("diff", "one", "two").split("\n\n"))
    assert cards[0] == "card\tone\ttwo"
    assert [row.split("\t")[0] for row in cards[1:]] == ["sha256", "license", "text"]
    assert "license\tmit\tapache-2.0" in cards
    assert weights == [
        "weights: cosine 1.0000, relative difference 0.0100 over 72 tensors of the same name, type and shape"
    ]
    assert effects[0] == "effect\tcka\tcosine\tdifference"
    assert [row.split("\t")[0] for row in effects[1:]] == [*(site.name for site in backbone.blocks), "end"]
    assert all(0.99 < float(row.split("\t")[2]) <= 1 for row in effects[1:])
    assert built == [{"name": "test_vit", "pretrained": True, "img_size": (32, 32)}]


@pytest.mark.parametrize("kind", list_plugins())
def test_a_module_does_not_differ_from_itself(zoo, printed, make_module, kind):
    zoo.add("same", make_module(kind))
    found = json.loads(printed("diff", "same", "same", "--json"))
    assert found["card"] == {}
    assert found["weights"]["difference"] == 0
    assert found["effects"]["end"]["cka"] == pytest.approx(1)


def test_diff_of_unlike_types(printed):
    found = json.loads(printed("diff", "unlike", "lora", "--json"))
    assert found["weights"] is None
    assert found["card"]["kind"] == ["convpass", "lora"]
    assert found["effects"]["end"]["cosine"] < 0.9
    assert "no tensor of one has the name, type and shape" in printed("diff", "unlike", "lora")


def test_diff_over_backbones_needs_none(zoo, printed, built, other_backbone):
    zoo.add("elsewhere", create_plugin("convpass", other_backbone))
    assert printed("diff", "one", "elsewhere").endswith(
        "they belong to different backbones, so that what they do is not compared\n"
    )
    assert json.loads(printed("diff", "one", "elsewhere", "--json"))["effects"] == {}
    assert built == []


def test_dedupe_proposes_and_removes_when_asked(zoo, printed):
    out = printed("dedupe")
    assert out.splitlines()[1].startswith("one\ttwo\t")
    assert out.endswith("could go: two (as one); remove them with --remove, or average some with: vimlight zoo merge\n")
    assert len(zoo) == 4
    found = json.loads(printed("dedupe", "--json"))
    assert ([pair["modules"] for pair in found["pairs"]], found["stand_ins"]) == ([["one", "two"]], {"two": "one"})
    assert printed("dedupe", "--remove").endswith("removed: two (as one); modules left: 3\n")
    assert zoo.names() == ["lora", "one", "unlike"]
    assert printed("dedupe") == "no two of 3 modules do nearly the same\n"


def test_dedupe_compares_within_backbones(zoo, printed, built, other_backbone):
    zoo.add("elsewhere", create_plugin("convpass", other_backbone))
    assert "elsewhere" not in printed("dedupe")
    assert len(built) == 1


def test_merge(zoo, printed):
    out = printed("merge", "one", "two", "--name", "mean")
    assert out.splitlines()[-1].startswith(f"added 'mean' to zoo '{zoo.path}': convpass, hidden 8")
    card = zoo.card("mean")
    assert (card.task, card.dataset, card.license) == ("classification", "scenes", "apache-2.0 AND mit")
    assert card.text == "the mean of one and two"
    one, two = card.extra["parents"]
    assert [(each["name"], each["sha256"]) for each in (one, two)] == [
        (name, zoo.card(name).sha256) for name in ("one", "two")
    ]
    # Half as far from each as they are from each other.
    assert 0 < one["difference"] < json.loads(printed("diff", "one", "two", "--json"))["effects"]["end"]["difference"]
    assert zoo.verify() == []


@pytest.mark.parametrize("kind", list_plugins())
def test_a_mean_of_one_module_is_that_module(zoo, printed, make_module, kind):
    zoo.add("same", make_module(kind))
    found = json.loads(printed("merge", "same", "same", "--name", "mean", "--json"))
    assert (found["parents"][0]["difference"], found["settings"]) == (0, zoo.card("same").settings)
    assert zoo.card("mean").sha256 == zoo.card("same").sha256


def test_a_mean_without_every_licence_has_none(zoo, printed):
    printed("merge", "one", "unlike", "--name", "mean")
    assert (zoo.card("mean").license, zoo.card("mean").dataset) == ("", "")


def test_what_a_mean_costs_in_scores_where_its_parents_data_are_at_hand(zoo, printed, make_module, backbone):
    from vimlight.data import MidstreamDataModule

    arguments = {"task": "shapes", "train": 30, "test": 1, "size": 32}
    data = MidstreamDataModule("scenes", arguments, preprocessing=backbone.preprocessing)
    head = shaken(AffineHead(backbone.num_features(), data.num_classes))
    about = {"task": data.kind, "dataset": data.source.name, "classes": data.class_names}
    zoo.add("learnt", make_module(), about, head=head.state_dict())
    out = printed("merge", "learnt", "unlike", "--name", "mean", *DATA)
    assert "learnt: loss" in out
    assert "; the mean with its head: loss" in out
    learnt, unlike = zoo.card("mean").extra["parents"]
    assert {"loss", "accuracy"} <= learnt["metrics"].keys() == learnt["metrics_of_mean"].keys()
    assert learnt["metrics"]["loss"] != learnt["metrics_of_mean"]["loss"]
    assert "metrics" not in unlike


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("merge", "one", "--name", "mean"), "a mean is one of two modules at least; 1 named"),
        (("merge", "one", "lora", "--name", "mean"), "an average needs modules of one type, setting and set of sites"),
        (("merge", "one", "two", "--name", "one"), "has a module 'one' already"),
        (("diff", "one", "too"), "did you mean 'two'"),
        (("diff", "one", "two", "--images", "3"), "--images 3 are too few to compare modules on; at least 4"),
        (("diff", "one", "two", "--data", "scnes"), "did you mean 'scenes'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes(zoo, arguments, text):
    assert text in refusal(*arguments, "--zoo", zoo.path)
    assert len(zoo) == 4
