"""Ways of fine-tuning: where they start, what they compute, what they learn and what they leave alone."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import write_open_clip
from tiny_tuning import EVERY, build, start_of, tune
from torch import nn
from torch.nn import functional as F

from vimlight.data import DownstreamDataModule
from vimlight.embedded import load_pair_model
from vimlight.errors import CacheError, ConfigError, UnknownNameError
from vimlight.transmiter import LogitCache
from vimlight.transmiter.cache.images import fit_like_open_clip
from vimlight.transmiter.sources import TUNINGS, check_tuning
from vimlight.transmiter.sources.clip_lora import LowRank, attention_weights
from vimlight.transmiter.sources.images import image_table, views_of


def made(name, path, seed=0, **settings):
    tuning = TUNINGS[name](start_of(path, seed), **settings)
    tuning.requires_grad_(False)
    tuning.learned.requires_grad_(True)
    return tuning


def inputs_of(tuning, path, rows=slice(None)):
    """What a way of fine-tuning reads of a cache's images, in evaluation."""
    cache = LogitCache.open(path)
    if tuning.reads == "features":
        return cache.features(rows)
    table, views = image_table(cache), views_of(cache)
    images = torch.stack([fit_like_open_clip(table.image(row), views.image_input) for row in range(len(table))])[rows]
    return next(iter(views.prepare(images, [])))


def zero_shot(path, rows=slice(None)):
    cache = LogitCache.open(path)
    return cache.logits(rows, columns=slice(0, cache.num_classes))


def test_images_of_a_cache_have_its_labels_whatever_the_order_of_classes_is_now(shapes, monkeypatch):
    cache, tables = LogitCache.open("caches/weak/train"), DownstreamDataModule.tables.func

    def turned(data):
        return {split: table.with_targets(11 - table.targets) for split, table in tables(data).items()}

    monkeypatch.setattr(DownstreamDataModule, "tables", property(turned))
    assert image_table(cache).targets.tolist() == cache.labels.tolist()


UNCHANGED = {
    "clip_adapter": {"alpha": 0.0},
    "clip_lora": {},
    # The words of the template, read in from their embeddings.
    "coop": {"words": "a picture of a"},
    "linear_probe": {},
    "taskres": {},
    "tip_adapter_f": {"alpha": 0.0},
}


def test_every_way_of_fine_tuning_has_a_start_that_changes_nothing():
    assert set(UNCHANGED) == set(TUNINGS)


@EVERY
@torch.no_grad()
def test_before_training_the_logits_are_those_of_the_cache(shapes, name):
    tuning = made(name, shapes / "test", **UNCHANGED[name]).eval()
    # Cached features are rounded to half precision.
    torch.testing.assert_close(
        tuning(inputs_of(tuning, shapes / "test")), zero_shot(shapes / "test"), atol=0.03, rtol=0.01
    )


@EVERY
def test_training_moves_all_that_is_learned_and_nothing_else(shapes, name):
    tuning = made(name, shapes / "train")
    rows = slice(0, 8)
    inputs, labels = inputs_of(tuning, shapes / "train", rows), LogitCache.open(shapes / "train").labels[rows]
    before = {key: value.clone() for key, value in tuning.state_dict().items()}
    optimizer = torch.optim.SGD(tuning.learned.parameters(), lr=0.5)
    tuning.train()
    # Two steps: what is multiplied by a zero moves with the second one.
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(tuning(inputs), labels)
        loss.backward()
        optimizer.step()
    learned = {id(parameter) for parameter in tuning.learned.parameters()}
    for key, parameter in tuning.named_parameters(remove_duplicate=False):
        if id(parameter) in learned:
            assert not torch.equal(parameter, before[key]), f"{key} did not move"
        else:
            assert torch.equal(parameter, before[key]), f"{key} moved"
    for key, buffer in tuning.named_buffers():
        assert torch.equal(buffer, before.get(key, buffer)), f"{key} moved"


@EVERY
@torch.no_grad()
def test_what_goes_into_a_cache_gives_the_logits_back(shapes, name):
    tuning = made(name, shapes / "train")
    for parameter in tuning.learned.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    tuning.eval()
    inputs = inputs_of(tuning, shapes / "train", slice(0, 6))
    head, rows = tuning.head(), tuning.rows(inputs)
    logits = rows if head is None else head.logits(rows)
    torch.testing.assert_close(logits, tuning(inputs), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits, zero_shot(shapes / "train", slice(0, 6)), atol=0.05)


@EVERY
def test_the_start_depends_on_the_seed_alone(shapes, name, untouched_rng):
    states = [made(name, shapes / "train", seed).learned.state_dict() for seed in (0, 0, 1)]
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key])
    drawn = name in ("clip_adapter", "clip_lora", "coop")
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0]) == drawn


@EVERY
def test_a_model_inside_stays_in_eval_mode(shapes, name):
    tuning = made(name, shapes / "train").train()
    awake = [path for path, module in tuning.named_modules() if path.startswith("model.") and module.training]
    changes = [path for path in awake if "parametrizations" in path]
    assert awake == changes or name != "clip_lora"
    assert name == "clip_lora" or not awake


def test_clip_adapter_by_hand(shapes):
    tuning = made("clip_adapter", shapes / "train", alpha=0.3, reduction=4)
    first, second = tuning.learned[0].weight, tuning.learned[2].weight
    features = LogitCache.open(shapes / "train").features(slice(0, 5))
    assert first.shape == (32, 128)
    mixed = 0.3 * torch.relu(torch.relu(features @ first.T) @ second.T) + 0.7 * features
    normed = mixed / mixed.norm(dim=1, keepdim=True)
    torch.testing.assert_close(tuning(features), tuning.scale * normed @ tuning.text.T, atol=1e-4, rtol=1e-4)


def test_taskres_by_hand(shapes):
    tuning = made("taskres", shapes / "train", alpha=0.7)
    residual = torch.randn(tuning.text.shape)
    tuning.learned["residual"].data.copy_(residual)
    features = LogitCache.open(shapes / "train").features(slice(0, 5))
    text = tuning.text + 0.7 * residual
    expected = tuning.scale * features @ (text / text.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(tuning(features), expected, atol=1e-4, rtol=1e-4)


def test_the_linear_probe_by_hand(shapes):
    tuning = made("linear_probe", shapes / "train")
    weight, bias = torch.randn(12, 128), torch.randn(12)
    tuning.learned["weight"].data.copy_(weight)
    tuning.learned["bias"].data.copy_(bias)
    features = LogitCache.open(shapes / "train").features(slice(0, 5))
    expected = tuning.scale * (features @ (tuning.text + weight).T + bias)
    torch.testing.assert_close(tuning(features), expected, atol=1e-3, rtol=1e-4)


def test_tip_adapter_f_starts_as_tip_adapter(shapes):
    from vimlight.transmiter.judging.methods import Fit, Images, Labelled, create_method, prepare

    cache = LogitCache.open(shapes / "train")
    features = cache.features(slice(0, 5))
    tuning = made("tip_adapter_f", shapes / "train", alpha=2.0, beta=4.0)
    method = create_method("tip_adapter", {"alpha": 2.0, "beta": 4.0})
    train = Labelled(cache.labels, lambda role: cache.features(), frozenset({"target_features"}))
    roles = frozenset({"target", "target_features"})
    names = cache.class_names
    prepare(method, Fit(names, names, tuple(range(12)), roles, groups=(), train=train, scale=cache.head.scale))
    images = Images({"target": zero_shot(shapes / "train", slice(0, 5)), "target_features": features}, ())
    torch.testing.assert_close(tuning(features), method(images), atol=1e-3, rtol=1e-4)


def test_a_low_rank_change_by_hand():
    change = LowRank(torch.Size([6, 5]), 3, 2, 4.0, 0.0, torch.Generator().manual_seed(0))
    weight = torch.randn(6, 5)
    assert torch.equal(change(weight), weight)
    nn.init.normal_(change.up)
    stacked = torch.cat([change.up[part] @ change.down[part] for part in range(3)])
    torch.testing.assert_close(change(weight), weight + 2.0 * stacked)


def test_the_dropout_of_a_change_leaves_out_inputs_and_keeps_the_mean():
    change = LowRank(torch.Size([4, 2000]), 1, 2, 2.0, 0.25, torch.Generator().manual_seed(0)).train()
    nn.init.normal_(change.up)
    full, weight = change.eval()(torch.zeros(4, 2000)), torch.zeros(4, 2000)
    dropped = change.train()(weight)
    left_out = (dropped == 0).all(dim=0)
    assert left_out.float().mean().item() == pytest.approx(0.25, abs=0.04)
    torch.testing.assert_close(dropped[:, ~left_out], full[:, ~left_out] / 0.75)


@torch.no_grad()
def test_a_changed_model_is_the_model_with_changed_weights(shapes):
    tuning = made("clip_lora", shapes / "train").eval()
    for change in tuning.learned:
        nn.init.normal_(change.up, std=0.1)
    plain, tokenizer, _ = load_pair_model("vit_scenes_small")
    merged = copy.deepcopy(plain)
    modules = dict(merged.named_modules())
    for path, module in tuning.model.named_modules():
        if hasattr(module, "parametrizations"):
            (weight,) = list(module.parametrizations)
            getattr(modules[path], weight).copy_(getattr(module, weight))
    images = inputs_of(tuning, shapes / "train", slice(0, 3))
    torch.testing.assert_close(tuning.rows(images), F.normalize(merged.encode_image(images), dim=1))
    texts = tokenizer([f"a picture of a {name}." for name in LogitCache.open(shapes / "train").class_names])
    torch.testing.assert_close(tuning.tuned_text(), F.normalize(merged.encode_text(texts), dim=1))
    assert not torch.allclose(merged.encode_image(images), plain.encode_image(images), atol=1e-3)


def test_queries_keys_and_values_of_all_layers_are_found():
    import open_clip

    pair, _, _ = load_pair_model("vit_scenes_small")
    found = attention_weights(pair, "pair")
    assert [(name, parts) for _, name, parts in found] == [("weight", 3)] * 6 + [("in_proj_weight", 3)] * 2
    vision = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
    native = open_clip.CLIP(24, vision, text)
    assert [name for _, name, _ in attention_weights(native, "native")] == ["in_proj_weight"] * 4
    separate = nn.ModuleDict({
        "visual": nn.ModuleDict({name: nn.Linear(4, 4) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}),
        "text": nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
    })  # fmt: skip
    names = [(name, parts) for _, name, parts in attention_weights(separate, "separate")]
    assert names == [("weight", 1)] * 3 + [("q_proj_weight", 1), ("k_proj_weight", 1), ("v_proj_weight", 1)]


def test_a_model_without_attention_is_refused():
    model = nn.ModuleDict({"visual": nn.Conv2d(3, 4, 3), "text": nn.MultiheadAttention(4, 2)})
    with pytest.raises(ConfigError, match="model 'convnet' has no attention in its image encoder"):
        attention_weights(model, "convnet")


@torch.no_grad()
def test_the_context_stands_between_start_and_class_name(shapes):
    tuning = made("coop", shapes / "train", words="a picture of a")
    text = tuning.tuned_text()
    tuning.learned["context"].data += 0.5 * torch.randn(tuning.learned["context"].shape)
    moved = tuning.train().tuned_text()
    assert not torch.allclose(text, moved, atol=0.01)
    model, tokenizer, _ = load_pair_model("vit_scenes_small")
    tokens = tokenizer([f"a picture of a {name}." for name in LogitCache.open(shapes / "train").class_names])
    embedding = model.text.token_embedding
    vectors = embedding(tokens)
    vectors[:, 1:5] = tuning.learned["context"]
    handle = embedding.register_forward_hook(lambda *_: vectors)
    expected = F.normalize(model.encode_text(tokens), dim=1)
    handle.remove()
    torch.testing.assert_close(moved, expected)


def test_a_context_that_leaves_no_room_is_refused(shapes):
    with pytest.raises(
        ConfigError, match=r"a context of 14 tokens leaves no room for the class '.*': the text encoder of"
    ):
        made("coop", shapes / "train", context=14)


@pytest.mark.slow
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("name", ["coop", "clip_lora"])
@torch.no_grad()
def test_models_of_open_clip_too(tmp_path, name, sigmoid):
    folder = build(tmp_path / "weak", write_open_clip(tmp_path / "model", sigmoid=sigmoid), "a photo of a {}.")
    settings = {"words": "a photo of a"} if name == "coop" else {}
    tuning = made(name, folder / "test", **settings).eval()
    torch.testing.assert_close(
        tuning(inputs_of(tuning, folder / "test")), zero_shot(folder / "test"), atol=0.03, rtol=0.01
    )


@pytest.mark.parametrize("name", ["coop", "clip_lora"])
def test_an_imported_cache_does_not_say_which_model_to_tune(shapes, tmp_path, name):
    from vimlight.transmiter import write_cache

    cache = LogitCache.open(shapes / "train")
    write_cache(
        tmp_path / "imported", features=cache.features(), head=cache.head, class_names=cache.class_names,
        labels=cache.labels, split="train", model="somebody's",
    )  # fmt: skip
    with pytest.raises(CacheError, match='does not say how its model "somebody\'s" is loaded'):
        made(name, tmp_path / "imported")


MISTAKES = {
    "way": ("clip_adaptor", "unknown way of fine-tuning 'clip_adaptor'; did you mean 'clip_adapter'"),
    "no name": ({"alpha": 0.1}, "lacks 'name', one of clip_adapter, clip_lora"),
    "setting": ({"name": "taskres", "alhpa": 1}, "unknown setting of method 'taskres' 'alhpa'; did you mean 'alpha'"),
    "type": ({"name": "taskres", "alpha": "big"}, "'alpha' of method 'taskres': expected float, got 'big'"),
    "truth": ({"name": "clip_lora", "rank": True}, "'rank' of method 'clip_lora': expected int, got True"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistyped_methods_and_settings(mistake):
    method, message = MISTAKES[mistake]
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        check_tuning(method)


RANGES = {
    "clip_adapter": [{"alpha": 1.5}, {"reduction": 0}],
    "clip_lora": [{"rank": 0}, {"dropout": -0.5}],
    "coop": [{"context": 0}],
    "taskres": [{"alpha": -1.0}],
    "tip_adapter_f": [{"alpha": -1.0}, {"beta": -1.0}],
}


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, several in RANGES.items() for one in several])
def test_settings_out_of_range(shapes, name, settings):
    (key,) = settings
    with pytest.raises(ConfigError, match=f"'{key}' of method '{name}' must"):
        made(name, shapes / "train", **settings)


def test_a_way_of_fine_tuning_from_outside(shapes):
    from vimlight.transmiter.sources import Tuning

    @TUNINGS.register("shift")
    class Shift(Tuning):
        """A bias for each class."""

        def __init__(self, start, strength: float = 1.0):
            super().__init__(start)
            self.learned, self.strength = nn.Linear(1, len(start.head)), strength

        def forward(self, features):
            return self.head_logits(features) + self.strength * self.learned.bias

        def rows(self, features):
            return self(features)

    try:
        module, _ = tune({"name": "shift", "strength": 2}, out="caches/shifted/{split}")
        tuned = LogitCache.open("caches/shifted/train")
        change = tuned.logits() - zero_shot(shapes / "train")
        torch.testing.assert_close(
            change, (2 * module.tuning.learned.bias.detach()).expand_as(change), atol=1e-3, rtol=1e-3
        )
    finally:
        del TUNINGS._entries["shift"]
