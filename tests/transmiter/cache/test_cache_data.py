"""Batches from caches: what is in them, how samples, views and orders are drawn, and what is refused."""

from __future__ import annotations

import pytest
import torch
from tiny_pair import AUX, CLASSES, images, logits, tuned, write_pair

from vimlight.errors import CacheError, ConfigError, DataError, UnknownNameError
from vimlight.transmiter import LogitCache, write_cache
from vimlight.transmiter.cache.data_module import CacheDataModule
from vimlight.transmiter.cache.loading import COMBINATIONS, CacheRows, confidence_weighted


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("caches")
    write_pair(path, count=82)
    latent, labels = images(40, 1, seed=5)
    common = {"class_names": CLASSES, "aux_names": AUX, "split": "test", "model": "weak"}
    write_cache(path / "test", logits=logits(latent, 1), labels=labels, **common)
    write_cache(path / "unlabelled", logits=logits(latent, 1), **common)
    return path


def cache_data(root, **options):
    return CacheDataModule(str(root / "weak"), **{"batch_size": 32, **options})


def epoch(data, number=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def joined(batches, key):
    return torch.cat([batch[key] for batch in batches])


def row_of(ids):
    return torch.tensor([int(name) for name in ids])


def test_a_batch_holds_the_logits_and_the_tuned_ones_of_the_same_view(root):
    data = cache_data(root, tuned=str(root / "weak_tuned"))
    weak, weak_tuned = (LogitCache.open(root / name) for name in ("weak", "weak_tuned"))
    both = [torch.stack([cache.logits(view=view) for view in (0, 1)], dim=1) for cache in (weak, weak_tuned)]
    seen = set()
    for batch in epoch(data):
        rows = row_of(batch["id"])
        assert set(batch) == {"logits", "tuned", "id"}
        for logits_row, tuned_row, row in zip(batch["logits"], batch["tuned"], rows, strict=True):
            view = [torch.equal(logits_row, both[0][row, view]) for view in (0, 1)].index(True)
            assert torch.equal(tuned_row, both[1][row, view])
            seen.add(view)
    assert seen == {0, 1}


def test_every_image_once_an_epoch_in_an_order_and_views_of_its_own(root):
    data = cache_data(root, tuned=str(root / "weak_tuned"), batch_size=82)
    epochs = [epoch(data, number)[0] for number in (0, 0, 1)]
    for batch in epochs:
        assert sorted(row_of(batch["id"]).tolist()) == list(range(82))
    assert epochs[0]["id"] == epochs[1]["id"] != epochs[2]["id"]
    assert torch.equal(epochs[0]["logits"], epochs[1]["logits"])
    first, third = (batch["logits"][row_of(batch["id"]).argsort()] for batch in epochs[::2])
    shared = (first == third).all(dim=1).float().mean()
    assert 0.2 < shared < 0.8, "about half of the images show the same view again"


@pytest.mark.parametrize("workers", [0, 1])
def test_worker_processes_change_nothing(root, workers):
    plain = epoch(cache_data(root, tuned=str(root / "weak_tuned")))
    other = epoch(cache_data(root, tuned=str(root / "weak_tuned"), num_workers=workers))
    assert torch.equal(joined(plain, "logits"), joined(other, "logits"))


def test_several_fine_tuned_models(root, tmp_path):
    latent, labels = images(82)
    second = tuned(logits(latent, 1), labels) * 3
    options = {"class_names": CLASSES, "labels": labels, "split": "train", "model": "second"}
    write_cache(tmp_path / "second", logits=second, **options)
    paths = [str(root / "weak_tuned"), str(tmp_path / "second")]
    alone = [joined(epoch(cache_data(root, tuned=path)), "tuned") for path in paths]
    for combine, function in COMBINATIONS.items():
        data = cache_data(root, tuned=paths, combine=combine)
        torch.testing.assert_close(joined(epoch(data), "tuned"), function(torch.stack(alone)))
    assert set(data.provenance()) == {"zero_shot", "tuned_0", "tuned_1"}


def test_confidence_weights():
    sure, unsure = torch.tensor([[10.0, 0.0]]), torch.tensor([[0.0, 0.1]])
    found = confidence_weighted(torch.stack([sure, unsure]))
    confidences = torch.tensor([sure.softmax(1).max(), unsure.softmax(1).max()]).softmax(0)
    torch.testing.assert_close(found, confidences[0] * sure + confidences[1] * unsure)
    torch.testing.assert_close(confidence_weighted(sure[None]), sure)


def test_few_shots(root):
    data = cache_data(root, shots=5)
    labels = LogitCache.open(root / "weak").labels
    train, val = (labels[data.rows[split]] for split in ("train", "val"))
    assert train.bincount().tolist() == val.bincount().tolist() == [5] * 4
    assert not set(data.rows["train"].tolist()) & set(data.rows["val"].tolist())
    assert set(cache_data(root, shots=3).rows["train"].tolist()) < set(data.rows["train"].tolist())
    assert cache_data(root, shots=5, seed=1).rows["train"].tolist() != data.rows["train"].tolist()
    batches = epoch(data)
    assert set(batches[0]) == {"logits", "target", "id"}
    assert torch.equal(joined(batches, "target"), labels[row_of([name for b in batches for name in b["id"]])])


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, (74, 8)),
        ({"val_shots": 3}, (70, 12)),
        ({"shots": 2, "val_shots": 3}, (8, 12)),
        ({"shots": 2, "val": "test"}, (8, 40)),
        ({"val": "test"}, (82, 40)),
        ({"val": "test", "classes": "base"}, (42, 20)),
        ({"classes": [1, 3], "shots": 4}, (8, 8)),
    ],
)
def test_how_images_are_lent_to_validation(root, options, counts):
    if "val" in options:
        options = {**options, "val": str(root / options["val"])}
    data = cache_data(root, **options)
    assert (len(data.rows["train"]), len(data.rows["val"])) == counts
    assert {split: len(ids) for split, ids in data.split_ids().items()} == dict(
        zip(("train", "val"), counts, strict=True)
    )
    if "val" not in options:
        assert not set(data.rows["train"].tolist()) & set(data.rows["val"].tolist())


def test_classes_by_partition_or_by_number(root):
    labels = LogitCache.open(root / "weak").labels
    for classes, expected in (("novel", [2, 3]), ([3, 0], [0, 3]), (None, [0, 1, 2, 3])):
        data = cache_data(root, classes=classes, test=str(root / "test"))
        assert data.class_indices == expected
        assert labels[data.rows["train"]].unique().tolist() == expected
        assert joined(data.test_dataloader(), "target").unique().tolist() == expected


def test_validation_test_and_prediction_come_in_order_in_the_first_view(root):
    data = cache_data(root, test=str(root / "test"))
    batches = list(data.batches("val"))
    rows = data.rows["val"]
    assert torch.equal(joined(batches, "logits"), LogitCache.open(root / "weak").logits(rows))
    assert torch.equal(joined(data.val_dataloader(), "logits"), joined(batches, "logits"))
    assert torch.equal(joined(data.test_dataloader(), "logits"), LogitCache.open(root / "test").logits())
    unlabelled = cache_data(root, test=str(root / "unlabelled"))
    unlabelled.setup("predict")
    assert all(set(batch) == {"logits", "id"} for batch in unlabelled.predict_dataloader())
    assert cache_data(root, tuned=str(root / "weak_tuned")).val_dataloader() == []


def test_the_global_random_state_is_left_alone(root, untouched_rng):
    data = cache_data(root, shots=3)
    data.setup("fit")
    list(data.train_dataloader())


def test_two_processes_share_the_images(root):
    from types import SimpleNamespace

    halves = []
    for rank in (0, 1):
        data = cache_data(root, tuned=str(root / "weak_tuned"))
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=strategy, training=False)
        halves.append({name for batch in epoch(data) for name in batch["id"]})
    assert halves[0] | halves[1] == {str(number) for number in range(82)}
    assert not halves[0] & halves[1]


def test_a_row_that_says_nothing_is_named(root):
    class Broken(LogitCache):
        def logits(self, rows=slice(None), *, view=0, columns=None):
            return super().logits(rows, view=view, columns=columns).fill_(2.0)

    cache = Broken.open(root / "weak")
    items = CacheRows(cache, torch.tensor([7, 9]), with_labels=False)
    with pytest.raises(DataError, match=r"row 9 \('9'\), view 1, of the train cache '.*weak': all logits equal 2"):
        items[3]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"batch_size": 0}, ConfigError, "batch_size must be at least 1, got 0"),
        ({"num_workers": -1}, ConfigError, "num_workers must be at least 0, got -1"),
        ({"shots": 0}, ConfigError, "shots must be at least 1, got 0"),
        ({"combine": "men"}, UnknownNameError, "combination of fine-tuned models 'men'; did you mean 'mean'"),
        ({"tuned": "x", "shots": 3}, ConfigError, "'shots' needs labels, but none are read where 'tuned' is given"),
        ({"tuned": "x", "classes": "base"}, ConfigError, "'classes' needs labels"),
        ({"tuned": "weak_tuend"}, CacheError, "weak_tuend' does not exist; did you mean '.*weak_tuned'"),
        ({"tuned": "test"}, CacheError, "hold 82 and 40 images"),
        ({"test": "strong_"}, CacheError, "strong_' does not exist; did you mean '.*strong'"),
        ({"shots": 50}, DataError, "class 'fox' has 20 images, but 100 are needed"),
        ({"classes": "bas"}, ConfigError, "classes: the cache has no partition 'bas'; did you mean 'base'"),
        ({"classes": "other"}, ConfigError, r"no partition 'other'; it knows \['base', 'novel'\]"),
        ({"classes": [0, 4]}, ConfigError, r"expected at least two indices from 0 to 3, got \[0, 4\]"),
        ({"classes": [1]}, ConfigError, r"expected at least two indices from 0 to 3, got \[1\]"),
        ({"val": "unlabelled"}, DataError, "unlabelled' has no labels, and val needs them"),
        ({"val": "weak_tuned"}, ConfigError, "data.val: the classes of .* are not those of train: missing"),
    ],
)
def test_mistakes(root, options, error, text):
    paths = {key: str(root / value) for key, value in options.items() if key in ("tuned", "val", "test")}
    with pytest.raises(error, match=text):
        cache_data(root, **{**options, **paths}).setup("fit")


def test_what_is_missing_for_a_test_is_said(root):
    for stage, split in (("test", "test"), ("predict", "test"), ("validate", "val")):
        with pytest.raises(ConfigError, match=rf"data.{split} is missing: set it to the directory of a cache"):
            cache_data(root, tuned=str(root / "weak_tuned")).setup(stage)
    with pytest.raises(DataError, match="unlabelled' has no labels, and test needs them"):
        cache_data(root, test=str(root / "unlabelled")).setup("test")
    with pytest.raises(UnknownNameError, match="unknown split 'vla'; did you mean 'val'"):
        next(cache_data(root).batches("vla"))
