"""`vimlight transfer` in process: what it writes, and every mistake in one line."""

from __future__ import annotations

import pytest
import torch
from tiny_pair import AUX, CLASSES, adapter, images, logits, tuned, write_pair
from torch.nn import functional as F

from vimlight.cli import main
from vimlight.transmiter import (
    GapRidge,
    LogitCache,
    TextHead,
    TransMiter,
    align,
    choose_beta,
    fit_gap_ridge,
    load_adapter,
    write_cache,
)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with the caches, the adapter `weak.safetensors`, and a second target."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    latent, labels = images()
    common = {"class_names": CLASSES, "split": "train"}
    write_cache("other", logits=logits(latent, 3), aux_names=AUX, model="other", labels=labels, **common)
    write_cache("bare", logits=logits(latent, 3)[..., :4], model="bare", **common)
    adapter().describe(class_names=CLASSES, aux_names=AUX, model="weak").save("weak.safetensors")
    return tmp_path


def run(text):
    main(["transfer", *text.split()])


MOVE = "--adapter weak.safetensors --source weak --target strong --out strong.safetensors"
GAP = "--method gap_ridge --source weak --source-tuned weak_tuned --target strong --out gap.safetensors"


def test_an_adapter_is_moved(workplace, capsys):
    run(MOVE)
    expected = align(TransMiter.load("weak.safetensors"), LogitCache.open("weak"), LogitCache.open("strong"))
    found = TransMiter.load("strong.safetensors")
    assert torch.equal(found.basis, expected.basis)
    assert found.card.model == "strong"
    out = capsys.readouterr().out
    for said in ("strong.safetensors", "rows 160", "beta 500", "agreement"):
        assert said in out


@pytest.mark.parametrize(
    ("option", "value"), [("--beta 7", {"beta": 7.0}), ("--beta-per-sample 2", {"beta_per_sample": 2.0})]
)
def test_the_pull(workplace, option, value):
    run(f"{MOVE} {option}")
    expected = align(TransMiter.load("weak.safetensors"), LogitCache.open("weak"), LogitCache.open("strong"), **value)
    assert torch.equal(TransMiter.load("strong.safetensors").basis, expected.basis)
    step = TransMiter.load("strong.safetensors").card.history[-1]
    assert {key: step[key] for key in value} == value


def test_the_pull_is_chosen_for_each_target(workplace):
    run(f"{MOVE.replace('--target strong', '--target strong other')} other.safetensors --beta-per-sample auto")
    for name in ("strong", "other"):
        weak, target = LogitCache.open("weak"), LogitCache.open(name)
        step = TransMiter.load(f"{name}.safetensors").card.history[-1]
        assert step["beta_per_sample"] == choose_beta(weak, target)


def test_several_targets_in_one_pass_and_a_chain(workplace):
    run("--adapter weak.safetensors --source weak --target strong other --out a.safetensors b.safetensors")
    run(MOVE)
    assert torch.equal(TransMiter.load("a.safetensors").basis, TransMiter.load("strong.safetensors").basis)
    assert TransMiter.load("b.safetensors").card.model == "other"
    run("--adapter a.safetensors --source strong --target other --out c.safetensors")
    assert [step["caches"]["target"]["model"] for step in TransMiter.load("c.safetensors").card.history] == [
        "strong",
        "other",
    ]


@pytest.mark.parametrize("method", ["--method gap_ridge ", ""], ids=["named", "left out"])
def test_a_gap_ridge_has_the_same_kind_of_file(workplace, capsys, method):
    run(GAP.replace("--method gap_ridge ", method))
    expected = fit_gap_ridge(*(LogitCache.open(name) for name in ("weak", "weak_tuned", "strong")))
    found = load_adapter("gap.safetensors")
    assert isinstance(found, GapRidge)
    assert torch.equal(found.weight, expected.weight)
    assert "strength" in capsys.readouterr().out


def test_a_gap_ridge_reads_features_where_there_are(workplace):
    names = ("weak", "weak_tuned", "strong")
    generator = torch.Generator().manual_seed(0)
    bare = LogitCache.open("strong")
    values = F.normalize(torch.randn(len(bare), bare.num_views, 12, generator=generator), dim=2)
    head = TextHead(F.normalize(torch.randn(bare.num_logits, 12, generator=generator), dim=1), 20.0, 0.0)
    facts = {"class_names": bare.class_names, "aux_names": bare.aux_names, "ids": list(bare.ids)}
    write_cache("seen", features=values, head=head, labels=bare.labels, split=bare.split, model="seen", **facts)
    run(GAP.replace("--target strong", "--target seen"))
    found = load_adapter("gap.safetensors")
    expected = fit_gap_ridge(*map(LogitCache.open, (*names[:2], "seen")), reads="features")
    assert found.reads == "features"
    assert torch.equal(found.weight, expected.weight)


def test_an_adapter_that_tells_nothing_is_said_to(workplace, capsys):
    tuned = LogitCache.open("weak_tuned")
    noise = torch.randn(len(tuned), tuned.num_views, tuned.num_logits, generator=torch.Generator().manual_seed(1))
    facts = {"class_names": tuned.class_names, "aux_names": tuned.aux_names, "ids": list(tuned.ids)}
    write_cache("noise", logits=100 * noise, labels=tuned.labels, split=tuned.split, model=tuned.model, **facts)
    said = "gap.safetensors: not expected to help: of images left out it tells"
    run(GAP)
    assert said not in capsys.readouterr().out
    run(GAP.replace("weak_tuned", "noise") + " --overwrite")
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("agreement", "doubted"), [(0.6, True), (0.7, True), (0.8, False)])
def test_an_adapter_that_its_extraction_doubted_is_doubted_when_it_is_moved(workplace, capsys, agreement, doubted):
    made = TransMiter.load("weak.safetensors")
    noted = made.card.after("extraction", agreement_left_out={"zero_shot": 0.7, "adapter": agreement})
    made.describe(class_names=CLASSES, aux_names=AUX, model="weak", history=noted).save("learnt.safetensors")
    run("--adapter learnt.safetensors --source weak --target strong --out moved.safetensors")
    said = "moved.safetensors: not expected to help: of images left out it agreed with the fine-tuned model no more"
    assert (said in capsys.readouterr().out) == doubted


def test_no_labels_and_no_model_are_needed(workplace, monkeypatch):
    write_pair(workplace / "unlabelled", unlabelled=True)
    import sys

    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    run("--adapter weak.safetensors --source unlabelled/weak --target unlabelled/strong --out a.safetensors")
    run(MOVE)
    assert torch.equal(TransMiter.load("a.safetensors").basis, TransMiter.load("strong.safetensors").basis)


MISTAKES = {
    "nothing": ("", "the following arguments are required: --source, --target, --out"),
    "method": (f"{MOVE} --method transmitr", "unknown transfer method 'transmitr'; did you mean 'transmiter'"),
    "neither": (
        "--source weak --target strong --out a.safetensors",
        "vimlight transfer needs --source-tuned, for a gap ridge, or --adapter, to move that",
    ),
    "no adapter": (
        "--method transmiter --source weak --target strong --out a.safetensors",
        "--method transmiter needs --adapter",
    ),
    "no tuned": (
        "--method gap_ridge --source weak --target strong --out a.safetensors",
        "--method gap_ridge needs --source-tuned",
    ),
    "foreign option": (f"{GAP} --beta 3", "--beta is no option of --method gap_ridge; leave it out"),
    "foreign option of transmiter": (f"{MOVE} --reads logits", "--reads is no option of --method transmiter"),
    "two pulls": (f"{MOVE} --beta 3 --beta-per-sample 3", "--beta and --beta-per-sample exclude each other"),
    "negative pull": (f"{MOVE} --beta -3", "beta must be at least 0, got -3.0"),
    "number": (f"{MOVE} --beta much", "argument --beta: invalid float value: 'much'"),
    "count of files": (MOVE.replace("strong --", "strong other --"), "2 targets need as many --out files, got 1"),
    "the same file twice": (
        "--adapter weak.safetensors --source weak --target strong other --out a.safetensors a.safetensors",
        "--out names 'a.safetensors' twice",
    ),
    "suffix": (MOVE.replace("strong.safetensors", "strong.pt"), "'strong.pt' ends in '.pt'"),
    "existing file": (MOVE.replace("strong.safetensors", "weak.safetensors"), "exists; choose another path or pass --"),
    "adapter": (MOVE.replace("weak.", "waek."), "'waek.safetensors' does not exist; did you mean 'weak.safetensors'"),
    "source": (MOVE.replace("--source weak", "--source waek"), "'waek' does not exist; did you mean 'weak'"),
    "wrong model": (MOVE.replace("--source weak", "--source other"), "holds logits of 'other', the adapter refines"),
    "target without auxiliary classes": (
        MOVE.replace("--target strong", "--target bare"),
        "have other auxiliary classes: missing in the second ['aux0'",
    ),
    "device": (f"{MOVE} --device gpu", "--device 'gpu':"),
    "features of bare logits": (f"{GAP} --reads features", "holds bare logits, no features to read"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_nothing_behind(workplace, capsys, mistake):
    text, expected = MISTAKES[mistake]
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        run(text)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert expected in said[0]
    assert {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()} == before


def test_classes_of_the_adapter_and_of_the_source_are_both_shown(workplace, capsys):
    adapter().describe(class_names=("cat", "dog", "fox", "elk"), aux_names=AUX).save("elk.safetensors")
    with pytest.raises(SystemExit):
        run(MOVE.replace("weak.safetensors", "elk.safetensors"))
    assert "other classes than the adapter: missing ['elk'], extra ['owl']" in capsys.readouterr().err


def test_a_file_is_replaced_where_that_is_asked_for(workplace):
    run(MOVE)
    before = (workplace / "strong.safetensors").read_bytes()
    run(f"{MOVE} --overwrite --beta 3")
    assert (workplace / "strong.safetensors").read_bytes() != before


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["transfer", "--help"])
    assert stopped.value.code == 0
    assert "No model is loaded" in " ".join(capsys.readouterr().out.split())


def test_the_tuned_source_may_have_other_auxiliary_classes(workplace):
    latent, labels = images()
    whole = torch.cat([tuned(logits(latent, 1), labels), torch.randn(80, 2, 1)], dim=2)
    write_cache("more", logits=whole, class_names=CLASSES, aux_names=["more"], split="train", model="weak tuned")
    run(GAP.replace("weak_tuned", "more"))
    run(GAP.replace("gap.", "plain."))
    assert torch.equal(load_adapter("gap.safetensors").weight, load_adapter("plain.safetensors").weight)
