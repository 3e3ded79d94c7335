"""Evaluation from caches: what is scored, who sees labels, what it costs, and how often the promise holds."""

from __future__ import annotations

import dataclasses
import gc

import pytest
import torch
from tiny_world import AUX, CLASSES, PARTITIONS

from vimlight.errors import AdapterError, CacheError, ConfigError, DataError, UnknownNameError
from vimlight.transmiter import TextHead, write_cache
from vimlight.transmiter.cache.names import StoredNames
from vimlight.transmiter.judging.evaluation import Evaluation, Result, evaluate, promise
from vimlight.transmiter.judging.methods import METHODS, Fit, Images, Method, list_methods
from vimlight.transmiter.judging.metrics import Score
from vimlight.transmiter.judging.protocols import PROTOCOLS
from vimlight.transmiter.judging.roles import Inputs
from vimlight.transmiter.judging.summary import Run, as_dict, averages, records

PROTOCOL = pytest.mark.parametrize("protocol", list(PROTOCOLS))


@PROTOCOL
def test_every_method_is_scored_or_left_out_with_a_reason(open_world, protocol):
    found = evaluate(open_world(), protocol, shots=4)
    assert set(found.results) | set(found.left_out) == set(list_methods())
    assert not set(found.results) & set(found.left_out)
    assert list(found.results) == [name for name in list_methods() if name in found.results]
    if protocol != "cross_dataset":
        assert not found.left_out
    else:
        assert found.left_out == {"tip_adapter": "needs labelled images in --target-train"}


def test_ids_of_what_is_scored_are_not_read(open_world, monkeypatch):
    read = []
    monkeypatch.setattr(StoredNames, "__getitem__", lambda names, index: read.append(index))
    inputs = Inputs({"target": open_world().target})
    found = evaluate(inputs, "all_classes", methods=["target_zero_shot"])
    assert not read
    assert {name: len(ids) for name, ids in found.ids.items()} == {name: len(of) for name, of in found.labels.items()}


def test_accuracies_of_the_models_themselves(open_world):
    inputs = open_world()
    found = evaluate(inputs, "base_to_novel").results
    for role, name in (
        ("target", "target_zero_shot"),
        ("source_tuned", "source_tuned"),
        ("source", "source_zero_shot"),
    ):
        logits, result = inputs.caches[role].logits(), found[name]
        for half in ("base", "novel"):
            columns = torch.tensor(PARTITIONS[half])
            rows = torch.isin(inputs.labels, columns)
            right = columns[logits[rows][:, columns].argmax(dim=1)] == inputs.labels[rows]
            assert result.accuracies[half] == pytest.approx(right.float().mean().item())
            assert set(result.scores[half].per_class) == set(PARTITIONS[half])
        base, novel = result.accuracies["base"], result.accuracies["novel"]
        assert result.accuracies["harmonic"] == pytest.approx(2 * base * novel / (base + novel))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_size_of_batches_does_not_matter(open_world, batch_size):
    expected = evaluate(open_world(), "all_classes").results
    found = evaluate(open_world(), "all_classes", batch_size=batch_size).results
    for name, result in found.items():
        assert result.accuracies == pytest.approx(expected[name].accuracies), name
        losses = [{group: score.log_loss for group, score in r.scores.items()} for r in (result, expected[name])]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), name


def tensors_within(thing, seen):
    """Yields every tensor that can be reached from an object, through closures and bound methods too."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, (Images, dict, list, tuple, set)) or type(thing).__name__ in ("mappingproxy",):
        for other in gc.get_referents(thing):
            yield from tensors_within(other, seen)


@PROTOCOL
def test_no_label_of_the_images_that_are_scored_reaches_a_method(open_world, protocol):
    """What a method is fitted and called with holds logits alone; the labels could be anything."""
    inputs = open_world()
    seen = []

    @METHODS.register("spy")
    class Spy(Method):
        """Writes down what it sees."""

        title = "spy"
        uses_labels = True
        reads = ("target", "target_all", "source", "source_tuned", "target_tuned", "target_features")

        def fit(self, data):
            for group in data.groups:
                assert {field.name for field in dataclasses.fields(group)} == {"name", "columns", "batches"}
                seen.extend(group.batches(self.reads, None))
            assert not [role for role in data.caches if not role.endswith("_train")]

        def __call__(self, images):
            seen.append(images)
            return images["target"]

    try:
        evaluate(inputs, protocol, methods=["spy"], shots=4)
    finally:
        del METHODS._entries["spy"]
    assert seen
    for images in seen:
        assert {field.name for field in dataclasses.fields(images)} == {"tensors", "columns"}
        assert not any(values.dtype == torch.int64 for values in tensors_within(images, set()))


@pytest.mark.parametrize("protocol", ["base_to_novel", "few_shot"])
def test_scores_change_with_the_labels_but_predictions_and_choices_do_not(world, open_world, tmp_path, protocol):
    """With the labels of the scored images shuffled within each half, every method says the same of every image."""
    inputs = open_world()
    shuffled = inputs.labels.clone()
    for half in PARTITIONS.values():
        rows = torch.isin(shuffled, torch.tensor(half)).nonzero().flatten()
        shuffled[rows] = shuffled[rows.roll(1)]
    cache = inputs.target
    write_cache(
        tmp_path / "shuffled", features=cache.features(), head=TextHead(cache.head.weights, 10.0), class_names=CLASSES,
        aux_names=AUX, labels=shuffled, ids=list(cache.ids), split="test", model="target", partitions=PARTITIONS,
    )  # fmt: skip
    only = ("source", "source_tuned", "target_tuned")
    others = {role: tmp_path / role for role in only}
    for role in only:
        write_cache(
            others[role], logits=inputs.caches[role].logits()[:, : len(CLASSES)], class_names=CLASSES, labels=shuffled,
            ids=list(cache.ids), split="test", model=role,
        )  # fmt: skip
    first, second = (
        evaluate(i, protocol, shots=4) for i in (inputs, open_world(target=tmp_path / "shuffled", **others))
    )
    assert first.results.keys() == second.results.keys()
    for name, result in first.results.items():
        assert repr(result.choices) == repr(second.results[name].choices), name
    assert any(r.accuracies != second.results[name].accuracies for name, r in first.results.items())


def test_methods_that_declare_no_labels_get_none(open_world):
    seen = {}

    def register(name, declared):
        @METHODS.register(name)
        class Probe(Method):
            """Notes whether there are labelled images."""

            title = name
            uses_labels = declared

            def fit(self, data):
                seen[name] = data.train is not None, data.val is not None

            def __call__(self, images):
                return images["target"]

    try:
        register("probe_without", False)
        register("probe_with", True)
        found = evaluate(open_world(), "base_to_base", methods=["probe_without", "probe_with"]).results
    finally:
        del METHODS._entries["probe_without"], METHODS._entries["probe_with"]
    assert seen == {"probe_without": (False, False), "probe_with": (True, True)}
    assert not found["probe_with"].labels, "it could have looked, but did not"


@pytest.mark.parametrize("protocol", ["base_to_novel", "all_classes"])
def test_labels_of_novel_classes_are_kept_from_everybody(open_world, protocol):
    seen = []

    @METHODS.register("reader")
    class Reader(Method):
        """Reads all labels."""

        title = "reader"
        uses_labels = True

        def fit(self, data: Fit):
            seen.extend([data.train.labels, data.val.labels])

        def __call__(self, images):
            return images["target"]

    try:
        found = evaluate(open_world(), protocol, methods=["reader"], shots=5).results["reader"]
    finally:
        del METHODS._entries["reader"]
    assert [sorted(labels.unique().tolist()) for labels in seen] == [PARTITIONS["base"]] * 2
    assert torch.bincount(seen[0]).tolist() == [5, 5, 5]
    assert found.labels


def test_shots_are_nested_and_depend_on_the_seed(open_world):
    inputs = open_world()
    draws = {
        (shots, seed): inputs.labelled("_train", range(6), torch.device("cpu"), shots=shots, seed=seed).read("target")
        for shots, seed in ((2, 0), (4, 0), (4, 1))
    }
    assert len(draws[2, 0]) == 12
    assert all((draws[4, 0] == row).all(dim=1).any() for row in draws[2, 0])
    assert not torch.equal(draws[4, 0], draws[4, 1])
    with pytest.raises(DataError, match="class 'cat' has 8 images, but 9 are needed"):
        inputs.labelled("_train", range(6), torch.device("cpu"), shots=9)


def test_cost_is_counted_and_measured(open_world):
    found = evaluate(open_world(), "base_to_base").results
    # One product with W each way, task columns alone on the way back, and the two layers of the MLP in between.
    assert found["transmiter"].added_flops == 2 * (10 * 10 + 2 * 10 * 40 + 10 * 6)
    assert found["gap_ridge"].added_flops == 2 * 10 * 6
    assert found["tip_adapter"].added_flops == 2 * (8 * 48 + 48 * 6)
    assert found["target_zero_shot"].added_flops == 0
    assert found["eft"].encoders == ("target", "source", "source_tuned")
    assert found["safe"].encoders == ("target", "source", "source_tuned")
    assert found["transmiter"].encoders == ("target",)
    assert found["source_tuned"].encoders == ("source_tuned",)
    assert all(result.seconds_per_image > 0 for result in found.values())


def test_an_encoder_that_two_models_share_runs_once(open_world, tmp_path):
    inputs = open_world()
    paths = {}
    for role in ("source", "source_tuned"):
        cache = inputs.caches[role]
        write_cache(
            tmp_path / role, logits=cache.logits()[:, :6], class_names=CLASSES, labels=inputs.labels,
            ids=list(cache.ids), split="test", model=role, weights="one and the same",
        )  # fmt: skip
        paths[role] = tmp_path / role
    found = evaluate(open_world(**paths), "base_to_base", methods=["eft"]).results["eft"]
    assert found.encoders == ("target", "source")


def test_features_are_needed_only_where_they_are_read(open_world, tmp_path):
    cache = open_world().target
    write_cache(
        tmp_path / "bare", logits=cache.logits(), class_names=CLASSES, aux_names=AUX, labels=cache.labels,
        ids=list(cache.ids), split="test", model="target",
    )  # fmt: skip
    found = evaluate(open_world(target=tmp_path / "bare"), "base_to_base")
    reason = "needs a --target cache with features"
    assert found.left_out == dict.fromkeys(("gap_ridge_features", "gap_ridge_plus", "tip_adapter"), reason)
    fixed = {"safe": {"experts": ["source_zero_shot", "source_tuned", "gap_ridge"]}}
    instead = evaluate(open_world(), "base_to_base", settings=fixed)
    assert found.results["safe"].accuracies == instead.results["safe"].accuracies


def test_only_the_target_is_needed(open_world, world):
    from vimlight.transmiter.judging.roles import Inputs

    found = evaluate(Inputs.open({"target": world["target"]}), "base_to_base")
    assert list(found.results) == ["target_zero_shot"]
    assert found.left_out["eft"] == "needs --source, --source-tuned"
    assert found.left_out["gap_ridge"] == "needs --target-train, --source-train, --source-tuned-train"
    assert found.left_out["safe"].startswith("needs --source-tuned, --adapter or another expert")


def test_caches_of_other_images_are_refused(open_world, world):
    with pytest.raises(CacheError, match="hold 48 and 60 images"):
        open_world(source=world["source_train"])


def test_learning_or_choosing_on_what_is_scored_is_refused(open_world, world):
    for role in ("target_val", "target_train"):
        with pytest.raises(CacheError, match=f"--{role.replace('_', '-')} .* shows the images that are scored"):
            open_world(
                *(f"{model}_{role.rpartition('_')[2]}" for model in ("source", "source_tuned")),
                **{role: world["target"]},
            )


def test_images_without_labels_cannot_be_scored(open_world, tmp_path):
    cache = open_world().target
    write_cache(
        tmp_path / "unlabelled", logits=cache.logits(), class_names=CLASSES, aux_names=AUX, ids=list(cache.ids),
        split="test", model="target",
    )  # fmt: skip
    with pytest.raises(DataError, match="has no labels to score by; import or build it with labels"):
        open_world(target=tmp_path / "unlabelled")


def test_a_group_without_images_is_refused(open_world, tmp_path):
    write_cache(
        tmp_path / "some", logits=torch.randn(4, 6), class_names=CLASSES, labels=torch.zeros(4, dtype=torch.long),
        split="test", model="target",
    )  # fmt: skip
    from vimlight.transmiter.judging.roles import Inputs

    with pytest.raises(DataError, match="has no image of the classes of group 'novel'"):
        evaluate(Inputs.open({"target": tmp_path / "some"}), "base_to_novel", base=[0, 1])


def test_a_gap_ridge_is_no_transmiter(open_world, world, tmp_path):
    from vimlight.transmiter import GapRidge

    GapRidge(10, 6).save(tmp_path / "gap.safetensors")
    with pytest.raises(AdapterError, match="holds a 'gap_ridge' adapter, which is no --adapter-plus"):
        open_world(adapter_plus=tmp_path / "gap.safetensors")
    with pytest.raises(AdapterError, match="holds a 'transmiter' adapter, which is no --gap-ridge"):
        open_world(gap_ridge=world["adapter"])


def test_an_adapter_that_was_not_moved_is_refused_as_a_moved_one(open_world, world, tmp_path):
    from vimlight.transmiter import TransMiter

    unmoved = TransMiter(10, 6).describe(class_names=CLASSES, aux_names=AUX, model="source")
    unmoved.save(tmp_path / "unmoved.safetensors")
    with pytest.raises(AdapterError, match=r"--adapter .* refines logits of the source 'source', not of the target"):
        open_world(adapter=tmp_path / "unmoved.safetensors")
    assert (
        open_world(adapter_unmoved=tmp_path / "unmoved.safetensors").adapters["adapter_unmoved"].card.model == "source"
    )


def test_what_is_missing_or_misspelt(open_world):
    inputs = open_world()
    with pytest.raises(ConfigError, match="'few_shot' needs the number of labelled images of each class: pass --shots"):
        evaluate(inputs, "few_shot")
    with pytest.raises(UnknownNameError, match="unknown method 'eftt'"):
        evaluate(inputs, "base_to_base", methods=["eftt"])


@pytest.mark.cuda
def test_on_a_gpu_it_is_the_same(open_world):
    expected = evaluate(open_world(), "base_to_novel").results
    found = evaluate(open_world(), "base_to_novel", device="cuda").results
    for name, result in found.items():
        assert result.accuracies == pytest.approx(expected[name].accuracies, abs=0.04), name


def result(name, **accuracies):
    scores = {group: Score(value, {0: value}, 0.1, 0.5, 10) for group, value in accuracies.items()}
    return Result(name, name.upper(), accuracies, scores, {}, False, 0, ("target",), 4.0, 1e-6)


def evaluation(**methods):
    return Evaluation("base_to_novel", CLASSES, (), {name: result(name, **found) for name, found in methods.items()})


def test_the_promise_is_counted_over_all_cases():
    first = evaluation(
        target_zero_shot={"base": 0.5, "novel": 0.6}, source_tuned={"base": 0.7, "novel": 0.4},
        one={"base": 0.7, "novel": 0.5}, two={"base": 0.8, "novel": 0.6},
    )  # fmt: skip
    second = evaluation(
        target_zero_shot={"base": 0.5, "novel": 0.6}, source_tuned={"base": 0.4, "novel": 0.4},
        one={"base": 0.6, "novel": 0.6},
    )  # fmt: skip
    found = promise([first, second, evaluation(target_zero_shot={"base": 0.1}, one={"base": 0.0})])
    assert (found["one"]["base"].kept, found["one"]["base"].cases) == (2, 2)
    assert (found["one"]["novel"].kept, found["one"]["novel"].cases) == (1, 2)
    assert found["one"]["novel"].worst == pytest.approx(-0.1)
    assert found["one"]["novel"].mean == pytest.approx(-0.05)
    assert found["two"]["base"].cases == 1


def test_means_over_seeds_and_data_sets_by_hand():
    def run(dataset, seed, base, novel, **also):
        harmonic = 2 * base * novel / (base + novel)
        methods = {"one": {"base": base, "novel": novel, "harmonic": harmonic}}
        return Run(dataset, None, seed, evaluation(**methods, **{k: {"base": v} for k, v in also.items()}))

    runs = [
        run("pets", 1, 0.8, 0.4), run("pets", 2, 0.6, 0.4, two=0.5), run("cars", 1, 0.4, 0.4), run("cars", 2, 0.2, 0.6),
    ]  # fmt: skip
    found = averages(records(runs))
    assert {record.method for record in found} == {"one"}, "the other one lacks a data set"
    values = {(record.metric, record.seed): record.value for record in found}
    assert values["base", 1] == pytest.approx(0.6)
    assert values["harmonic", 1] == pytest.approx((2 * 0.8 * 0.4 / 1.2 + 0.4) / 2)
    assert values["harmonic of averages", 1] == pytest.approx(2 * 0.6 * 0.4 / 1.0)
    summary = {(row["method"], row["dataset"], row["metric"]): row for row in as_dict(runs)["summary"]}
    row = summary["one", "pets", "base"]
    assert row["mean"] == pytest.approx(0.7)
    assert row["std"] == pytest.approx(0.02**0.5)
    assert row["seeds"] == {"1": 0.8, "2": 0.6}
    # The quantile of one degree of freedom is that of Cauchy's distribution.
    assert row["confidence_95"] == pytest.approx(12.7062047 * 0.02**0.5 / 2**0.5)
    assert summary["two", "pets", "base"]["std"] is None
    with pytest.raises(DataError, match="two runs of 'pets', shots all, seed 1"):
        records([runs[0], runs[0]])
