"""Training, validation and test with the cache give what they give without it, and run no frozen block twice."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from functools import partial

import pytest
import torch
from tiny_training import VIT, digits, downstream, learned, midstream, scenes, trainer
from torch.optim import SGD

from vimlight.aggregation import list_aggregators
from vimlight.backbone import create_backbone
from vimlight.data import DownstreamDataModule
from vimlight.data.dealing import TrainingRows
from vimlight.errors import ConfigError, UnknownNameError
from vimlight.plugins import create_plugin
from vimlight.report.callbacks import RunReport
from vimlight.zoo import Zoo

DEPTH = 4
LATE = {"kind": "convpass", "hidden": 2, "blocks": "last:2"}


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    backbone = create_backbone("vit_tiny_patch16_224", **{**VIT, "depth": DEPTH})
    # The way from the plug-ins on is found with random images, which no test shall count.
    backbone.route(DEPTH - 2)
    return backbone


@pytest.fixture(scope="module")
def zoos(tmp_path_factory, backbone):
    """Zoos of two random modules each: in the last two blocks, and in all blocks."""
    zoos = {}
    for blocks in ("last:2", "all"):
        zoos[blocks] = Zoo(tmp_path_factory.mktemp("zoo"))
        for number in range(2):
            plugin = create_plugin("convpass", backbone, hidden=2, blocks=blocks)
            generator = torch.Generator().manual_seed(number)
            with torch.no_grad():
                for parameter in plugin.parameters():
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            zoos[blocks].add(f"m{number}", plugin)
    return {blocks: zoo.path for blocks, zoo in zoos.items()}


@pytest.fixture
def seen(backbone):
    """Counts how often each image goes through each block; probes with empty images are left out."""
    counts = [Counter() for _ in range(DEPTH)]
    current = []

    def note(_, args):
        current[:] = [hash(image.contiguous().numpy().tobytes()) for image in args[0]] if args[0].any() else []

    def count(depth):
        return lambda *_: counts[depth].update(current)

    handles = [backbone.model.patch_embed.register_forward_pre_hook(note)]
    handles += [block.register_forward_hook(count(n)) for n, block in enumerate(backbone.model.blocks)]
    yield counts
    for handle in handles:
        handle.remove()


@pytest.fixture
def embedded(backbone):
    """Counts how often each image is made tokens of."""
    counts = Counter()

    def count(_, args):
        if args[0].any():
            counts.update(hash(image.contiguous().numpy().tobytes()) for image in args[0])

    handle = backbone.model.patch_embed.register_forward_pre_hook(count)
    # The way from the first block on is found with random images.
    backbone.route(0)
    counts.clear()
    yield counts
    handle.remove()


@pytest.fixture
def in_order(monkeypatch):
    """Training images come in order: then batches are those in which the cache was filled.

    The last bits of an image's numbers depend on its place in the batch on some processors, with or without a cache.
    """
    class InOrder(TrainingRows):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.shuffle = False

    monkeypatch.setattr("vimlight.data.image_data.TrainingRows", InOrder)


def fit(root, model, data, epochs=3, **options):
    lightning = trainer(root, epochs, **options)
    lightning.fit(model, datamodule=data)
    return lightning


def same(one, other):
    assert all(value.isfinite().all() for value in one.values())
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def cache(path, **options):
    return {"dir": str(path), "dtype": "float32", **options}


SLOW = pytest.mark.slow
# Every readout and every augmentation is quick once.
READ = [("none", "last"), ("photo", "layers"), ("photo", "grid")]
READ += [pytest.param(*both, marks=SLOW) for both in (("none", "layers"), ("none", "grid"), ("photo", "last"))]


@pytest.mark.parametrize(("augment", "readout"), READ)
def test_midstream_training_is_the_same_bit_for_bit(tmp_path, backbone, seen, in_order, readout, augment):
    results = []
    for run, kept in enumerate((None, cache(tmp_path / "cache", views=3), cache(tmp_path / "cache", views=3))):
        for counter in seen:
            counter.clear()
        data = scenes(train=40, augment=augment)
        options = {"plugin": LATE, "readout": readout, "optimizer": partial(SGD, lr=0.001), "prefix_cache": kept}
        model = midstream(backbone, data, **options)
        metrics = fit(tmp_path, model, data).callback_metrics
        results.append((learned(model), {name: float(value) for name, value in metrics.items()}))
        if run == 1:
            assert set(seen[0].values()) == set(seen[1].values()) == {1}
        if run == 2:
            assert not seen[0]
    assert same(results[0][0], results[1][0])
    assert same(results[0][0], results[2][0])
    assert results[0][1] == results[1][1] == results[2][1]


def test_of_plugins_in_the_first_block_what_precedes_it_is_kept(tmp_path, backbone, embedded, in_order):
    results = []
    for kept in (None, cache(tmp_path / "cache"), cache(tmp_path / "cache")):
        embedded.clear()
        data = scenes(train=40)
        model = midstream(backbone, data, optimizer=partial(SGD, lr=0.001), prefix_cache=kept)
        fit(tmp_path, model, data, epochs=3)
        results.append((learned(model), set(embedded.values())))
    (plain, times), (filling, once), (reading, never) = results
    assert same(plain, filling)
    assert same(plain, reading)
    assert min(times) == 3
    assert (once, never) == ({1}, set())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-3), ("bfloat16", 1e-2)])
def test_shuffled_training_is_as_close_as_what_is_stored(tmp_path, backbone, dtype, tolerance):
    models = []
    for kept in (None, cache(tmp_path / "cache", dtype=dtype)):
        data = scenes(train=40)
        models.append(midstream(backbone, data, plugin=LATE, optimizer=partial(SGD, lr=0.001), prefix_cache=kept))
        fit(tmp_path, models[-1], data)
    one, other = (learned(model) for model in models)
    assert dtype == "float32" or not same(one, other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance)


# Sums in one pass differ in nothing that is kept, and with modules in all blocks they keep nothing. Each way to use a
# zoo is quick once.
QUICK = {"last:2": ("ens_moe", "router", "logit_ensemble"), "all": ("best_single", "none")}
EVERY = [
    pytest.param(how, "ridge", blocks, marks=() if how in quick else SLOW)
    for blocks, quick in QUICK.items()
    for how in list_aggregators()
]
EVERY += [("k_streams", "linear", "all")]
EVERY += [
    pytest.param(how, "linear", blocks, marks=SLOW)
    for how, blocks in (("ens_moe", "last:2"), ("ens_moe", "all"), ("k_streams", "last:2"))
]


@pytest.mark.parametrize(("how", "head", "blocks"), EVERY)
def test_every_aggregator_is_the_same_bit_for_bit(tmp_path, backbone, zoos, seen, in_order, how, blocks, head):
    results = []
    for kept in (None, cache(tmp_path / "cache")):
        for counter in seen:
            counter.clear()
        data = digits(shots=2, batch_size=8, test_limit=20)
        options = {"aggregator": how, "head": head, "optimizer": partial(SGD, lr=0.001), "prefix_cache": kept}
        model = downstream(backbone, data, zoos[blocks], **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lightning = fit(tmp_path, model, data, epochs=2)
            tested = lightning.test(model, datamodule=data, verbose=False)[0]
        results.append((learned(model), tested))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    passes = [max(counter.values()) for counter in seen]
    if how == "none":
        assert passes == [1, 1, 1, 1]
    elif blocks == "last:2":
        assert passes[:2] == [1, 1]
    if how in ("best_single", "k_streams", "logit_ensemble"):
        # One pass a module, and one without the zoo to rank them; where tokens stand for images, the later blocks count
        # for none of them.
        assert blocks == "last:2" or passes == [3, 3, 3, 3]


def test_a_fresh_module_in_late_blocks_leaves_the_first_ones_frozen(tmp_path, backbone, zoos, seen, in_order):
    results = []
    for kept in (None, cache(tmp_path / "cache")):
        for counter in seen:
            counter.clear()
        data = digits(shots=2, batch_size=8, test_limit=20)
        options = {"extra_module": LATE, "optimizer": partial(SGD, lr=0.001), "prefix_cache": kept}
        model = downstream(backbone, data, zoos["last:2"], aggregator="k_streams", **options)
        fit(tmp_path, model, data, epochs=2)
        results.append(learned(model))
    assert same(*results)
    assert max(seen[0].values()) == 1


def test_modules_that_share_a_cache_do_not_mix(tmp_path, backbone, zoos, in_order):
    heads = {}
    for names in (["m0"], ["m1"]):
        data = digits(shots=3)
        model = downstream(
            backbone, data, zoos["all"], modules=names, aggregator="best_single", prefix_cache=cache(tmp_path / "cache")
        )
        fit(tmp_path, model, data, epochs=1)
        plain = downstream(backbone, data, zoos["all"], modules=names, aggregator="best_single")
        fit(tmp_path, plain, data, epochs=1)
        heads[names[0]] = learned(model)
        assert same(heads[names[0]], learned(plain))
    assert not same(heads["m0"], heads["m1"])


def test_the_ranking_computes_no_more_images_than_it_looks_at(tmp_path, backbone, zoos, embedded):
    data = scenes(stage=DownstreamDataModule, train=400, batch_size=16)
    model = downstream(
        backbone, data, zoos["all"], aggregator="best_single", ranking_limit=30, prefix_cache=cache(tmp_path / "cache")
    )
    model._trainer = trainer(tmp_path)
    model._trainer.datamodule = data
    data.trainer = model._trainer
    model._trainer.strategy._lightning_module = model
    model.setup("fit")
    passed = []
    handle = backbone.model.blocks[0].register_forward_hook(lambda _, args, output: passed.append(len(output)))
    model.rank_modules()
    handle.remove()
    # Embedded once for both modules, and through the blocks once for each; single images are probes of shapes.
    assert set(embedded.values()) == {1}
    assert len(embedded) == 64
    assert [count for count in passed if count > 1] == 2 * [16] * 4


def test_the_report_still_shows_images(tmp_path, backbone):
    data = scenes(train=40)
    model = midstream(backbone, data, plugin=LATE, prefix_cache=cache(tmp_path / "cache"))
    shown = []

    class Report(RunReport):
        def on_validation_end(self, lightning, module):
            shown.extend(sample.image for sample in self._samples)

    fit(tmp_path, model, data, epochs=1, callbacks=[Report(images=2)])
    ((_, plain),) = data.read("val", [range(len(data.tables["val"]))])
    assert len(shown) == 2
    assert all(any(torch.equal(image, known) for known in plain) for image in shown)


def test_a_resumed_run_goes_on_with_the_same_views(tmp_path, backbone):
    from tiny_training import keeping_checkpoints

    options = {"plugin": LATE, "optimizer": partial(SGD, lr=0.001)}
    data = scenes(train=40, augment="light")
    whole = midstream(backbone, data, prefix_cache=cache(tmp_path / "a", views=2), **options)
    keeping_checkpoints(tmp_path, epochs=3).fit(whole, datamodule=data)
    resumed = midstream(backbone, data, prefix_cache=cache(tmp_path / "b", views=2), **options)
    trainer(tmp_path, epochs=3).fit(resumed, datamodule=data, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert same(learned(whole), learned(resumed))


def test_mixed_precision_has_numbers_of_its_own(tmp_path, backbone):
    results = []
    fit(tmp_path, midstream(backbone, data := scenes(train=40), plugin=LATE, prefix_cache=cache(tmp_path / "c")), data)
    for kept in (None, cache(tmp_path / "c")):
        data = scenes(train=40)
        model = midstream(backbone, data, plugin=LATE, optimizer=partial(SGD, lr=0.001), prefix_cache=kept)
        fit(tmp_path, model, data, precision="bf16-mixed")
        results.append(learned(model))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-2, atol=1e-2)
    assert len(list((tmp_path / "c").iterdir())) == 4


@pytest.mark.parametrize(
    ("plugin", "kept", "reason"),
    [
        ("ssf", {}, "something outside the blocks is learned or has a plug-in"),
        (LATE, {"max_gb": 1e-6}, "do not fit into 1e-06 GB; raise prefix_cache.max_gb"),
    ],
)
def test_what_cannot_be_kept_runs_without_and_says_why(tmp_path, backbone, plugin, kept, reason):
    results = []
    for given in (None, cache(tmp_path / "cache", **kept)):
        data = scenes(train=40)
        model = midstream(backbone, data, plugin=plugin, prefix_cache=given)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(tmp_path, model, data, epochs=1)
        results.append((learned(model), [str(w.message) for w in caught if "prefix_cache" in str(w.message)]))
    assert same(results[0][0], results[1][0])
    assert not results[0][1]
    assert {text.partition(" runs")[0] for text in results[1][1]} == {"prefix_cache: train", "prefix_cache: val"}
    assert all(reason in text for text in results[1][1])
    assert not (tmp_path / "cache").exists()


def test_a_model_that_cannot_go_on_from_a_block_runs_without(tmp_path):
    backbone = create_backbone("xcit_nano_12_p16_224", img_size=32, embed_dim=32, depth=2, num_heads=2)
    data = scenes(train=20)
    model = midstream(
        backbone, data, plugin={"kind": "lora", "blocks": [1]}, prefix_cache=cache(tmp_path / "cache")
    )
    with pytest.warns(UserWarning, match="train runs without it: behind XCABlock the model does more"):
        fit(tmp_path, model, data, epochs=1)


def test_a_convolutional_backbone_is_served_too(tmp_path, in_order):
    backbone = create_backbone("test_efficientnet", img_size=32)
    results = []
    for kept in (None, cache(tmp_path / "cache")):
        data = scenes(train=40)
        plugin = {"kind": "convpass", "hidden": 2, "blocks": "last:1"}
        model = midstream(backbone, data, plugin=plugin, optimizer=partial(SGD, lr=0.001), prefix_cache=kept)
        fit(tmp_path, model, data, epochs=2)
        results.append(learned(model))
    assert same(*results)
    assert (tmp_path / "cache").exists()


def test_views_repeat(tmp_path, backbone, seen):
    data = scenes(train=40, augment="light")
    model = midstream(backbone, data, plugin=LATE, prefix_cache=cache(tmp_path / "cache", views=2))
    fit(tmp_path, model, data, epochs=5, limit_val_batches=0)
    # Two views, and the images as they are for the head's statistics.
    assert len(seen[0]) == 3 * len(data.tables["train"])
    assert set(seen[0].values()) == {1}


def test_augmentation_without_a_number_of_views_is_refused(tmp_path, backbone):
    data = scenes(train=20, augment="light")
    model = midstream(backbone, data, plugin=LATE, prefix_cache=cache(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"set prefix_cache.views to a number of fixed ones .* or data.augment to 'n"):
        fit(tmp_path, model, data)


def test_data_of_another_kind_are_refused(tmp_path, backbone):
    data = scenes(train=20)
    model = midstream(backbone, data, plugin=LATE, prefix_cache=cache(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="prefix_cache needs a MidstreamDataModule or a DownstreamDataModule"):
        trainer(tmp_path).fit(model, train_dataloaders=torch.utils.data.DataLoader([0]))


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({}, ConfigError, "lacks 'dir', the directory of the cache"),
        ({"dir": "a", "max_bg": 1}, UnknownNameError, "setting of prefix_cache 'max_bg'; did you mean 'max_gb'?"),
        ({"dir": "a", "dtype": "flaot16"}, UnknownNameError, "unknown dtype of prefix_cache 'flaot16'; did you mean"),
        ({"dir": "a", "max_gb": 0}, ConfigError, "max_gb of prefix_cache must be more than 0, got 0"),
        ({"dir": "a", "views": 0}, ConfigError, "views of prefix_cache must be at least 1, got 0"),
        ({"dir": "a", "views": "two"}, ConfigError, "'views' of prefix_cache: expected int, got 'two'"),
        ({"dir": 3}, ConfigError, "'dir' of prefix_cache: expected str, got 3"),
    ],
)
def test_mistakes_in_the_settings_are_named(backbone, settings, error, text):
    with pytest.raises(error, match=re.escape(text)):
        midstream(backbone, scenes(train=20), prefix_cache=settings)


def test_the_next_model_on_the_same_data_is_not_served(tmp_path, backbone):
    data = scenes(train=20)
    fit(tmp_path, midstream(backbone, data, plugin=LATE, prefix_cache=cache(tmp_path / "cache")), data, epochs=1)
    assert data.keeper is not None
    fit(tmp_path, midstream(backbone, data, plugin="convpass"), data, epochs=1)
    assert data.keeper is None
