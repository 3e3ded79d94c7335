"""Ranking a large zoo by successive halving."""

from __future__ import annotations

import csv
import math
from collections import Counter
from functools import partial

import pytest
import torch
from tiny_kinds import SETTINGS, SIZE, scene_for
from tiny_training import digits, downstream, fill, learned, tiny_backbone, trainer
from torch.optim import SGD

from vimlight.aggregation import list_aggregators
from vimlight.data import DownstreamDataModule
from vimlight.errors import UnknownNameError
from vimlight.plugins import attach, create_plugin
from vimlight.report.callbacks import RunReport
from vimlight.tasks import create_task
from vimlight.tasks.closed_form import ridge
from vimlight.training import halving
from vimlight.training.base import choose_readout, collect_examples, examples_of
from vimlight.training.halving import KEPT, SuccessiveHalving, in_turn, schedule
from vimlight.zoo import Zoo

COUNT = 18
# One of vectors and one of maps; the others do the same.
QUICK = ("multilabel", "depth")
STILL = {"epochs": 1, "optimizer": partial(SGD, lr=0.0)}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, backbone):
    """Modules of which the later ones spoil more of what the backbone sees; two leave the first block alone."""
    zoo = fill(tmp_path_factory.mktemp("zoo"), backbone, {f"m{n:02}": 0.02 + 0.3 * n for n in range(COUNT - 2)})
    for name in ("late", "later"):
        torch.manual_seed(len(name))
        module = create_plugin("convpass", backbone, hidden=2, blocks="last:1")
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        zoo.add(name, module)
    return zoo.path


@pytest.fixture
def looked(backbone):
    """Counts the images that pass each block."""
    seen = Counter()
    hooks = [
        block.register_forward_hook(lambda _, args, out, depth=depth: seen.update({depth: len(args[0])}))
        for depth, block in enumerate(backbone.model.blocks)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def drawn(kind="classification", train=60, **options):
    arguments = {"task": scene_for(kind, "downstream"), "train": train, "test": 24, "size": SIZE}
    return DownstreamDataModule("scenes", arguments, **{"batch_size": 16, **options})


def halved(backbone, zoo, data, settings=None, names=None, limit=48):
    """Ranks a zoo outside of a training."""
    task = create_task(settings or "classification", data.class_names)
    data._preprocessing = backbone.preprocessing
    task.prepare(data.tables["train"].targets)
    readout = choose_readout(task, None, "grid")
    return SuccessiveHalving(
        backbone, Zoo(zoo), names or Zoo(zoo).names(), data=data, task=task, readout=readout, solve=ridge, limit=limit
    )


def fitted(root, backbone, data, zoo, epochs=2, callbacks=(), **options):
    model = downstream(backbone, data, zoo, ranking_limit=48, **options)
    fit = trainer(root, epochs, callbacks=list(callbacks))
    fit.fit(model, datamodule=data)
    return model, fit


@pytest.mark.parametrize("modules", [15, 44, 60, 100, 300, 1000])
@pytest.mark.parametrize("images", [200, 1000, 1024])
def test_the_schedule_keeps_to_its_passes(modules, images):
    rungs = schedule(modules, images)
    before = [0, *(rung.images for rung in rungs)]
    cost = sum(rung.modules * (rung.images - seen) for rung, seen in zip(rungs, before, strict=False))
    # The bare backbone sees all images, and nine starts of the gates an eighth of them each.
    most = {1000: 20.0, 300: 16.0}.get(modules, 12.0)
    assert cost + (1 + 9 / 8) * images <= most * images or (images < 1000 and rungs[0].images == 6)
    assert rungs[0].modules == modules
    assert [rung.modules for rung in rungs[-2:]] == [KEPT, 3]
    assert rungs[-1].images == images
    assert before == sorted(set(before))


@pytest.mark.parametrize("modules", [1001, 1500, 3000, 10_000, 100_000])
def test_of_too_many_modules_as_many_are_judged_as_the_passes_suffice_for(modules):
    rungs = schedule(modules, 1000)
    before = [0, *(rung.images for rung in rungs)]
    cost = sum(rung.modules * (rung.images - seen) for rung, seen in zip(rungs, before, strict=False))
    passes = 12 + 8 * math.log10(modules / 100)
    assert cost / 1000 + 1 + 9 / 8 <= passes
    assert rungs[0].images == 6 or rungs[0].modules == modules
    assert rungs[0].modules <= modules
    assert rungs[0].modules > 1000


def test_passes_that_are_left_go_to_the_first_rung():
    firsts = [schedule(modules, 1000)[0].images for modules in (15, 44, 100, 1000)]
    assert firsts == sorted(firsts, reverse=True)
    assert firsts[2] >= 1000 // 32 - 2


@pytest.mark.parametrize(("modules", "images", "limit"), [(14, 1000, 1000), (100, 23, 23), (100, 50, 1000)])
def test_where_little_is_to_do_all_modules_see_all_images(modules, images, limit):
    assert schedule(modules, images, limit) == []
    assert (modules + 10) * images <= 24_000


@pytest.mark.parametrize("images", [12, 30, 60])
def test_beginnings_of_the_order_have_a_fair_share_of_each_class(images):
    labels = torch.arange(120) % 3
    labels[:60] = 0
    order = in_turn(labels)
    assert sorted(order) == list(range(120))
    shares = torch.bincount(labels[order[:images]], minlength=3) / images
    torch.testing.assert_close(shares, torch.bincount(labels) / 120, atol=2 / images, rtol=0)
    # Of a single image of a class there is no leaving out.
    assert torch.equal(labels[order[::2]], labels[order[1::2]])


def test_an_image_of_several_classes_counts_as_the_rarest():
    flags = torch.zeros(40, 3)
    flags[:, 0], flags[:4, 2] = 1, 1
    order = in_turn(flags)
    assert [sum(row < 4 for row in order[start : start + 20]) for start in (0, 20)] == [2, 2]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(settings, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, settings in SETTINGS.items()
    ],
)
def test_every_kind_that_ranks_is_ranked(backbone, zoo, settings):
    if not create_task(settings, drawn(settings["kind"]).class_names).ranks:
        pytest.skip("has no examples to leave out")
    data = drawn(settings["kind"])
    found = halved(backbone, zoo, data, settings)
    ranking = found.rank("ens_moe")
    assert set(ranking.modules) == set(Zoo(zoo).names())
    counts = Counter(ranking.images_of(name) for name in ranking.modules)
    assert counts[ranking.images] == 3
    assert sum(counts.values()) == COUNT
    # What was kept from rung to rung is what all images give at once.
    best, rows = ranking.best(), found._order
    with attach(backbone, Zoo(zoo).load(best, backbone)):
        compute = partial(backbone, readout=found._readout)
        whole = collect_examples(compute, data.batches("train", only=rows), found._task, len(rows))
    if found._task.reads == "vector":
        expected = ridge(whole.vectors, whole.columns, images=whole.images).loss
        assert ranking.modules[best] == pytest.approx(float(expected), rel=1e-4)


def test_images_and_modules_are_looked_at_no_more_often_than_planned(backbone, zoo, looked, monkeypatch):
    loads = Counter()
    load = Zoo.load
    monkeypatch.setattr(Zoo, "load", lambda self, name, *more: (loads.update([name]), load(self, name, *more))[1])
    data = drawn()
    found = halved(backbone, zoo, data)
    looked.clear()
    found.rank("ens_moe")
    images, planned = [0, *(rung.images for rung in found.rungs)], len(found._order)
    for rung, seen in zip(found.rungs, images, strict=False):
        planned += rung.modules * (rung.images - seen)
    # Two modules in the first rung start from what the first block made of the images.
    assert looked[1] - COUNT - 2 <= planned <= looked[1]
    assert looked[0] <= looked[1] - found.rungs[0].images + 4
    assert max(loads.values()) == len(found.rungs)
    assert sum(loads.values()) == sum(rung.modules for rung in found.rungs)


def test_modules_that_share_their_first_blocks_get_the_errors_that_they_have_alone(backbone, zoo, monkeypatch):
    shared = halved(backbone, zoo, drawn()).rank("ens_moe")
    monkeypatch.setattr(SuccessiveHalving, "_can_share", lambda self, depth, size: False)
    plain = halved(backbone, zoo, drawn()).rank("ens_moe")
    assert shared.modules == pytest.approx(plain.modules, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("how", [h for h in list_aggregators() if h != "none"])
def test_gates_start_from_the_best_of_a_large_zoo(tmp_path, backbone, zoo, how):
    data = drawn(test_limit=12)
    model, fit = fitted(tmp_path, backbone, data, zoo, aggregator=how, epochs=1, callbacks=[RunReport(images=0)])
    starts = how in ("ens_moe", "router", "select", "best_single", "merge", "logit_ensemble")
    ranking = model.ranking
    assert model.module_names == (ranking.names()[:KEPT] if starts else Zoo(zoo).names())
    assert model.gates.shape[1] == (KEPT if starts else COUNT)
    assert ranking.aggregated == pytest.approx(model.eval()._left_out_error(model.aggregator), rel=1e-4)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = downstream(backbone, data, zoo, aggregator=how)
    scores = [
        trainer(tmp_path, callbacks=[RunReport(images=0)]).test(one, datamodule=data, verbose=False, ckpt_path=path)
        for one, path in ((model, None), (again, tmp_path / "a.ckpt"))
    ]
    assert scores[0] == scores[1]
    assert again.ranking == ranking
    with (tmp_path / "ranking.csv").open(newline="") as file:
        rows = {row["features"]: int(row["images"]) for row in csv.DictReader(file)}
    assert rows == {**{name: ranking.images_of(name) for name in ranking.modules}, "bare backbone": 48, how: 48}


def test_a_large_zoo_is_not_loaded_before_it_is_ranked_or_asked_for(backbone, zoo, monkeypatch):
    loads = []
    load = Zoo.load
    monkeypatch.setattr(Zoo, "load", lambda self, name, *more: (loads.append(name), load(self, name, *more))[1])
    model = downstream(backbone, drawn(), zoo)
    assert loads == []
    assert model.gates.shape == (4, COUNT)
    assert loads == Zoo(zoo).names()


@pytest.mark.slow
def test_a_large_zoo_may_be_ranked_exactly(tmp_path, backbone, zoo):
    exact, _ = fitted(tmp_path, backbone, drawn(), zoo, ranking="exact", **STILL)
    assert exact.module_names == Zoo(zoo).names()
    assert exact.ranking.modules == exact.rank_modules()
    quick, _ = fitted(tmp_path, backbone, drawn(), zoo, **STILL)
    assert len(set(quick.ranking.names()[:KEPT]) & set(exact.ranking.names()[:KEPT])) >= 4
    with pytest.raises(UnknownNameError, match="unknown ranking 'halvin'; did you mean 'halving'"):
        downstream(backbone, drawn(), zoo, ranking="halvin")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"head": "lda"}, {"head": "linear"}])
def test_two_runs_are_the_same(tmp_path, backbone, zoo, options):
    options = {"optimizer": partial(SGD, lr=1e-4), **options}
    runs = [fitted(tmp_path, backbone, digits(shots=6, batch_size=60), zoo, **options)[0] for _ in range(2)]
    assert runs[0].ranking == runs[1].ranking
    assert len(runs[0].module_names) == KEPT
    for name, value in learned(runs[0]).items():
        torch.testing.assert_close(learned(runs[1])[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_a_resumed_run_takes_the_modules_of_its_checkpoint(tmp_path, backbone, zoo):
    model, fit = fitted(tmp_path, backbone, drawn(), zoo, epochs=1)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    # As if another zoo were better on other images.
    other = drawn(seed=5)
    again = downstream(backbone, other, zoo, ranking_limit=48)
    trainer(tmp_path, 2).fit(again, datamodule=other, ckpt_path=tmp_path / "a.ckpt")
    assert again.module_names == model.module_names
    assert again.ranking.modules == model.ranking.modules


@pytest.mark.slow
def test_a_run_that_goes_on_does_not_rank_again(tmp_path, backbone, zoo, monkeypatch):
    names = Zoo(zoo).names()
    model, fit = fitted(tmp_path, backbone, drawn(), zoo, epochs=1, modules=names)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    monkeypatch.setattr(SuccessiveHalving, "rank", lambda *_: pytest.fail("ranked again"))
    again = downstream(backbone, drawn(), zoo, ranking_limit=48, modules=names)
    goes_on = trainer(tmp_path, 2)
    goes_on.ckpt_path = tmp_path / "a.ckpt"
    goes_on.fit(again, datamodule=drawn())
    assert (again.module_names, again.ranking.modules) == (model.module_names, model.ranking.modules)
    # One that was fitted on a list of modules is judged under the same list.
    judged = downstream(backbone, drawn(), zoo, ranking_limit=48, modules=names)
    trainer(tmp_path).test(judged, datamodule=drawn(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert judged.module_names == model.module_names


def test_of_too_many_modules_those_are_judged_whose_cards_are_nearest(tmp_path, backbone, monkeypatch):
    zoo = fill(tmp_path, backbone, {f"m{n:02}": 0.02 for n in range(16)})
    data = drawn()
    near = {"m03": {"classes": data.class_names}, "m09": {"task": data.kind, "samples": {"train": 9}}}
    for name, card in near.items():
        zoo.add(name, zoo.load(name, backbone), card, overwrite=True)
    rungs = [halving.Rung(2, 12), halving.Rung(2, 24)]
    monkeypatch.setattr(halving, "schedule", lambda *_: rungs)
    data._preprocessing = backbone.preprocessing
    task = create_task(data.kind, data.class_names)
    found = SuccessiveHalving(
        backbone, zoo, zoo.names(), data=data, task=task, readout="layers", solve=ridge, limit=24
    ).rank("ens_moe")
    assert set(found.modules) == {"m03", "m09"}


@pytest.mark.slow
def test_the_start_of_a_fit_takes_twelve_passes(tmp_path, backbone, zoo, looked):
    model = downstream(backbone, drawn(train=400, shots=None), zoo, ranking_limit=256)
    model.on_fit_start = lambda: model.start_from_ranking()
    looked.clear()
    with torch.no_grad():
        trainer(tmp_path, limit_train_batches=0, limit_val_batches=0).fit(model, datamodule=drawn(train=400))
    assert 0 < looked[1] <= 12 * 256


def test_examples_are_those_of_a_batch(backbone):
    data = drawn()
    data._preprocessing = backbone.preprocessing
    task = create_task("classification", data.class_names)
    batch = next(data.batches("train", only=[5, 3, 8]))
    assert batch["id"] == [data.split_ids()["train"][row] for row in (5, 3, 8)]
    assert len(examples_of(task, backbone(batch["image"]), batch["target"], 3).vectors) == 3
