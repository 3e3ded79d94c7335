"""The demo and its controls: what the short one and the full one compare, and the half that moves adapters."""

from __future__ import annotations

import json

import pytest
import torch

import vimlight as vl
from vimlight.commands import demo
from vimlight.comparison.controls import ShuffledLabels, random_like
from vimlight.comparison.processes import precision_here
from vimlight.comparison.transfer import Adapted, TransferPlan
from vimlight.data import load_source
from vimlight.data.sources.compositions import composition_names, held_out_compositions
from vimlight.errors import ConfigError, UnknownNameError
from vimlight.pages import build_report


def test_random_modules_have_the_trained_modules_scale():
    backbone = vl.create_backbone("test_vit", img_size=32)
    trained = vl.create_plugin("convpass", backbone, hidden=8)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    random = random_like(trained, seed=0)
    ours, theirs = (torch.cat([p.flatten() for p in m.parameters()]) for m in (random, trained))
    assert abs(ours.std() / theirs.std() - 1) < 0.1
    assert abs(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) < 0.1
    again = random_like(trained, seed=0).parameters()
    assert all(torch.equal(a, b) for a, b in zip(random.parameters(), again, strict=True))


def test_precision_follows_the_hardware_unless_it_is_named(monkeypatch):
    assert precision_here("64-true") == "64-true"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert precision_here("auto") == "bf16-mixed"
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert precision_here("auto") == "32-true"


def test_shuffled_labels_keep_the_images_and_the_counts():
    options = {"task": "shapes", "train": 60, "test": 4, "size": 32}
    plain, shuffled = vl.MidstreamDataModule("scenes", options), ShuffledLabels("scenes", options)
    a, b = plain.source.train.targets, shuffled.source.train.targets
    assert not torch.equal(a, b)
    assert torch.equal(a.sort().values, b.sort().values)
    assert torch.equal(plain.source.train.images([3])[0], shuffled.source.train.images([3])[0])


def test_every_shape_and_texture_of_a_held_out_composition_is_seen():
    names, held_out = composition_names(), set(held_out_compositions())
    seen = [name.split() for index, name in enumerate(names) if index not in held_out]
    assert {shape for _, shape in seen} == {name.split()[1] for name in names}
    assert {texture for texture, _ in seen} == {name.split()[0] for name in names}
    source = load_source("compositions", {"train": 2, "val": 1, "test": 1, "size": 32})
    assert not held_out & set(source.train.targets.tolist()) | (held_out & set(source.val.targets.tolist()))
    assert set(source.test.targets.tolist()) == set(range(len(names)))


def test_a_half_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown half of the demo 'transfers'; did you mean 'transfer'"):
        demo.main(["--out", str(tmp_path / "out"), "--only", "transfers"])
    (tmp_path / "transfer.json").touch()
    with pytest.raises(ConfigError, match=r"transfer\.json exists; choose another --out"):
        demo.main(["--out", str(tmp_path), "--only", "transfer"])


@pytest.mark.parametrize(("flags", "full"), [([], False), (["--full"], True)])
def test_the_short_demo_and_the_full_one(tmp_path, monkeypatch, flags, full):
    monkeypatch.setattr(demo, "prepare_workers", lambda modules: None)
    monkeypatch.setattr(demo, "both", lambda *plans, **options: seen.append((plans, options)))
    seen = []
    demo.main(["--out", str(tmp_path / "out"), *flags])
    demo.main(["--out", str(tmp_path / "out"), "--only", "transfer", *flags])
    assert seen[0][0] == (demo.plan(full), demo.transfer_plan(full), tmp_path / "out")
    assert seen[1][0] == (None, demo.transfer_plan(full), tmp_path / "out")


def test_the_short_demo_compares_no_less_strictly():
    short, full = demo.plan(), demo.plan(full=True)
    controls = {"linear probe, all layers", "random modules", "shuffled midstream labels", "uniform"}
    few, many = ({method.label: method for method in plan.methods} for plan in (short, full))
    assert controls < few.keys() < many.keys()
    assert few.items() <= many.items()
    for name in ("backbones", "plugin", "seeds", "reference"):
        assert getattr(short, name) == getattr(full, name), name
    for name in ("name", "readout", "lr", "epochs"):
        assert [getattr(task, name) for task in short.midstream] == [getattr(task, name) for task in full.midstream]
    few, many = ({task.name: task for task in plan.downstream} for plan in (short, full))
    assert "digits" in few
    assert few.items() < many.items()
    moved, all_moved = demo.transfer_plan(), demo.transfer_plan(full=True)
    assert {"source_tuned", "target_zero_shot", "transmiter", "safe"} <= set(moved.methods) < set(all_moved.methods)
    assert moved.seeds == all_moved.seeds[:2]


@pytest.mark.parametrize("role", ["target_tuned", "adapter_no_aux", "adapter_plus"])
def test_what_no_method_of_a_plan_needs_is_not_trained(role):
    assert demo.transfer_plan(full=True).needs(role)
    assert not demo.transfer_plan().needs(role)


@pytest.mark.slow
def test_the_transfer_half_scores_every_method_for_every_seed(tmp_path):
    plan = TransferPlan(
        held_out_compositions(),
        dataset_args={"train": 2, "val": 1, "test": 1},
        num_logits=48,
        seeds=(0, 1),
        adapted=Adapted(method="clip_adapter", epochs=1, shots=1, few_epochs=1, extraction_epochs=1),
    )
    table = demo.run_transfer(plan, tmp_path, overwrite=False)
    written = json.loads((tmp_path / "transfer.json").read_text())
    assert [run["seed"] for run in written["runs"]] == [0, 1]
    novel = {composition_names()[index] for index in held_out_compositions()}
    for run in written["runs"]:
        assert not run["left_out"]
        assert set(run["groups"]["novel"]["classes"]) == novel
    assert {"transmiter", "transmiter_plus", "target_tuned", "gap_ridge", "eft", "safe"} <= set(table.titles)
    assert "TransMiter+" in build_report([tmp_path / "transfer.json"]).render()
