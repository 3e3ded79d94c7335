"""New heads for stored features, and caches joined."""

from __future__ import annotations

import pytest
import torch
from tiny_caches import AUX, CLASSES, random_features, random_head
from tiny_models import write_open_clip

from vimlight.data import DownstreamDataModule
from vimlight.errors import CacheError, DataError
from vimlight.transmiter import LogitCache, TextHead
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.cache.derive import with_head
from vimlight.transmiter.cache.heads import Vocabulary, encoded_head
from vimlight.transmiter.cache.merge import merge_caches
from vimlight.transmiter.models.image_text import load_model

SHAPES = {"task": "shapes", "train": 60, "test": 24, "size": 32}


def test_another_head_shares_the_features(make_cache):
    cache = make_cache(partitions={"base": [0, 2]}, text={"templates": ["a {}."]})
    head = random_head(4, scale=3.0, bias=1.0, seed=9)
    made = with_head(cache, cache.path.with_name("new"), head, class_names=["fish", "cow", "dog", "cat"], aux_names=())
    torch.testing.assert_close(made.logits(), 3 * cache.features() @ head.weights.T + 1)
    assert [made.class_names[label] for label in made.labels] == [CLASSES[label] for label in cache.labels]
    assert made.partitions == {"base": [3, 0]}
    assert list(made.ids) == list(cache.ids)
    assert made.manifest.text == {}, "nobody knows how this head was made"
    assert made.verify() == []
    assert (made.path / "features.npy").stat().st_ino == (cache.path / "features.npy").stat().st_ino
    assert cache.verify() == []


def test_features_are_copied_where_there_are_no_links(make_cache, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    cache = make_cache()
    monkeypatch.setattr("os.link", refuse)
    made = with_head(cache, cache.path.with_name("new"), random_head(seed=9))
    assert made.verify() == []
    assert torch.equal(made.features(), cache.features())


def test_new_words_for_the_same_classes(make_cache):
    cache = make_cache()
    words = ["kitten", "hound", "trout"]
    with pytest.raises(DataError, match=r"the new list lacks: \['cat', 'dog', 'fish'\]; .* pass --by-position"):
        with_head(cache, cache.path.with_name("new"), random_head(), class_names=words)
    made = with_head(cache, cache.path.with_name("new"), random_head(), class_names=words, by_position=True)
    assert torch.equal(made.labels, cache.labels)
    assert made.class_names == tuple(words)
    with pytest.raises(DataError, match="2 names cannot take the places of the 3 classes"):
        with_head(cache, cache.path.with_name("other"), random_head(4), class_names=words[:2], by_position=True)


def test_heads_that_do_not_fit(make_cache, tmp_path):
    cache, bare = make_cache(), make_cache("bare", logits=torch.randn(20, 5))
    with pytest.raises(DataError, match="holds bare logits, no features"):
        with_head(bare, tmp_path / "new", random_head())
    with pytest.raises(DataError, match=r"the text head is \(4, 8\), expected \(5, 8\)"):
        with_head(cache, tmp_path / "new", random_head(4))
    with pytest.raises(DataError, match="'oak' occurs twice: as task class in column 3 and as auxiliary class in col"):
        with_head(cache, tmp_path / "new", random_head(6), class_names=[*CLASSES, "oak"])
    assert not (tmp_path / "new").exists()


@pytest.fixture
def built(tmp_path):
    """A cache of the embedded model, and the model."""
    model = load_model("vit_scenes_small")
    data = DownstreamDataModule("scenes", SHAPES, batch_size=16)
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"{adjective} thing" for adjective in ("red", "green", "blue", "grey", "dotted")))
    settings = CacheSettings(templates="a {}.", vocabulary=Vocabulary(14, words=str(words)))
    return build_cache(tmp_path / "built", model, data, settings), model, str(words)


def test_the_same_names_give_the_same_head(built):
    cache, _, _ = built
    head, entries = encoded_head(cache, cache.class_names)
    made = with_head(cache, cache.path.with_name("new"), head, **entries)
    assert made.hash == cache.hash
    torch.testing.assert_close(made.logits(), cache.logits())


def test_other_classes_and_templates_for_stored_features(built):
    cache, model, words = built
    names = [*reversed(cache.class_names), "spiral"]
    drawn = Vocabulary(16, words=words, seed=5)
    head, entries = encoded_head(cache, names, drawn, ["many {}", "{}"], "the {}")
    made = with_head(cache, cache.path.with_name("new"), head, class_names=names, **entries)
    features = torch.stack([model.encode_text([f"many {name}", name]).mean(dim=0) for name in names])
    torch.testing.assert_close(made.head.weights[:13], torch.nn.functional.normalize(features, dim=1))
    torch.testing.assert_close(made.head.weights[13:], model.encode_text([f"the {name}" for name in made.aux_names]))
    assert made.manifest.vocabulary["seed"] == 5
    assert made.manifest.text == {"templates": ["many {}", "{}"], "aux_templates": ["the {}"]}


@pytest.mark.parametrize("strategy", ["farthest_point", "hard", "highest_spread"])
def test_strategies_that_look_at_the_model(built, strategy):
    cache, model, words = built
    head, entries = encoded_head(cache, cache.class_names, Vocabulary(15, strategy, words=words))
    made = with_head(cache, cache.path.with_name("new"), head, **entries)
    assert len(set(made.aux_names)) == 3
    if strategy == "highest_spread":
        left = [
            f"{name} thing"
            for name in ("red", "green", "blue", "grey", "dotted")
            if f"{name} thing" not in made.aux_names
        ]
        others = cache.features() @ model.encode_text([f"a {name}." for name in left]).T
        assert made.logits(columns=slice(12, 15)).std(dim=0).min() > made.head.scale * others.std(dim=0).max()


def test_a_model_that_cannot_be_had_again(make_cache, tmp_path, built):
    with pytest.raises(CacheError, match=r"does not say how its model 'tiny' is loaded.*with --head FILE"):
        encoded_head(make_cache(), CLASSES)
    name = write_open_clip(tmp_path / "clip")
    data = DownstreamDataModule("scenes", SHAPES, batch_size=16)
    cache = build_cache(tmp_path / "clip_cache", load_model(name), data)
    for file in (tmp_path / "clip").iterdir():
        file.unlink()
    (tmp_path / "clip").rmdir()
    write_open_clip(tmp_path / "clip", seed=1)
    with pytest.raises(CacheError, match="was built with other weights of 'local-dir:"):
        encoded_head(cache, cache.class_names)


def test_other_images_of_the_same_classes(make_cache, tmp_path):
    first = make_cache("first", partitions={"base": [0]})
    second = make_cache(
        "second", features=random_features(7, seed=4), ids=[f"b{row}" for row in range(7)], split="val",
        partitions={"base": [1], "novel": [2]},
    )  # fmt: skip
    merged = merge_caches([first, second], tmp_path / "merged")
    assert torch.equal(merged.features(), torch.cat([first.features(), second.features()]))
    assert torch.equal(merged.labels, torch.cat([first.labels, second.labels]))
    assert list(merged.ids) == [*first.ids, *second.ids]
    assert merged.partitions == {"base": [0, 1], "novel": [2]}
    assert merged.split == "train+val"
    assert merged.manifest.data == {"merged": [first.hash, second.hash]}
    assert merge_caches([first, second], tmp_path / "named", split="all").split == "all"


def test_bare_logits_of_other_images(make_cache, tmp_path):
    logits = torch.randn(20, 5)
    names = [str(row) for row in range(20)]
    parts = [make_cache(f"part{at}", logits=logits[at : at + 5], ids=names[at : at + 5]) for at in range(0, 20, 5)]
    merged = merge_caches(parts, tmp_path / "merged")
    assert torch.equal(merged.logits(), logits)
    assert list(merged.ids) == names
    other = make_cache("other", logits=torch.randn(3, 5), ids=list("abc"), class_names=("cat", "cow", "fish"))
    with pytest.raises(CacheError, match="hold bare logits of different classes"):
        merge_caches([parts[0], other], tmp_path / "none")


def test_images_of_other_classes(make_cache, tmp_path):
    first = make_cache("first")
    head = TextHead(torch.cat([first.head.weights[2:3], random_head(1, seed=8).weights, first.head.weights[3:]]), 10.0)
    second = make_cache(
        "second", features=random_features(4, seed=4), head=head, ids=list("abcd"),
        class_names=("fish", "cow"), labels=torch.tensor([0, 1, 1, 0]),
    )  # fmt: skip
    merged = merge_caches([first, second], tmp_path / "merged")
    assert merged.class_names == ("cat", "dog", "fish", "cow")
    assert merged.aux_names == AUX
    assert merged.labels[-4:].tolist() == [2, 3, 3, 2]
    torch.testing.assert_close(merged.logits(slice(20, 24), columns=[2, 3, 4, 5]), second.logits())
    torch.testing.assert_close(merged.logits(slice(0, 20), columns=[0, 1, 2, 4, 5]), first.logits())


@pytest.mark.parametrize("kind", ["features", "logits"])
def test_other_classes_of_the_same_images(make_cache, tmp_path, kind):
    weights, logits = random_head(7).weights, torch.randn(20, 7)
    columns = [[0, 1, 2, 3], [4, 5, 6]]

    def cache(number, names, aux):
        own = {"logits": logits[:, columns[number]]} if kind == "logits" else {
            "features": random_features(), "head": TextHead(weights[columns[number]], 10.0)}  # fmt: skip
        return make_cache(f"part{number}", class_names=names, aux_names=aux, labels=None, **own)

    parts = [cache(0, ("cat", "dog", "fish"), ("oak",)), cache(1, ("cow", "hen"), ("fern",))]
    merged = merge_caches(parts, tmp_path / "merged")
    assert merged.class_names == ("cat", "dog", "fish", "cow", "hen")
    assert merged.aux_names == AUX
    expected = torch.cat([part.logits() for part in parts], dim=1)[:, [0, 1, 2, 4, 5, 3, 6]]
    torch.testing.assert_close(merged.logits(), expected)
    assert merged.split == "train"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "cannot be merged: model is 'tiny' in the first and 'other' in the second"),
        ({"weights": "0" * 64}, "cannot be merged: weights is ''"),
        ({"head": random_head(scale=7.0)}, "cannot be merged: scale is 10.0 in the first and 7.0 in the second"),
        ({"head": random_head(seed=5)}, "have different text features of 'cat'; rebuild one head"),
        ({"labels": None}, "some of the caches are labelled and some are not"),
        ({"ids": [*"abcdefghijklmnopqrs", "images/3.png"]}, "both have the image 'images/3.png', but not all images"),
    ],
)
def test_what_cannot_be_merged(make_cache, tmp_path, changes, message):
    second = make_cache("second", **{"ids": list("abcdefghijklmnopqrst"), **changes})
    with pytest.raises(CacheError, match=message):
        merge_caches([make_cache(), second], tmp_path / "merged")
    with pytest.raises(CacheError, match="it takes two caches or more to merge, got 1"):
        merge_caches([second], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_labels_of_the_same_images_must_agree(make_cache, tmp_path):
    first = make_cache(logits=torch.randn(20, 5))
    other = make_cache(
        "other",
        logits=torch.randn(20, 3),
        class_names=("cow", "hen", "emu"),
        aux_names=(),
        labels=torch.zeros(20).long(),
    )
    with pytest.raises(CacheError, match="disagree on the label of row 0: 'cat' and 'cow'"):
        merge_caches([first, other], tmp_path / "merged")
    assert LogitCache.open(first.path).labels is not None
