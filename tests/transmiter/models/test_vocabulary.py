from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vimlight.errors import ConfigError, DataError, UnknownNameError
from vimlight.transmiter.models.vocabulary import STRATEGIES, draw_vocabulary, eligible, normal_form, word_list

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
WORDS = ("oak", "fern", "gym shoe, sneaker, tennis shoe", "tennis shoe", "rose", "cactus", "moss", "palm, palm tree")


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS) + "\n\n")
    return path


def vector_of(name):
    """A unit vector that depends on the name alone."""
    seed = sum(map(ord, name))
    return F.normalize(torch.randn(6, generator=torch.Generator().manual_seed(seed)), dim=0)


def features(names):
    return torch.stack([vector_of(name) for name in names])


def logits(names):
    generator = torch.Generator().manual_seed(0)
    return features(names).abs().sum(dim=1) * torch.randn(12, len(names), generator=generator)


PROVIDERS = {"class_features": features, "text_features": features, "logits": logits}


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_strategy_draws_other_names_repeatably(strategy, words, untouched_rng):
    def draw(**changes):
        options = {"strategy": strategy, "words": words, "providers": PROVIDERS, **changes}
        return draw_vocabulary(["Sneakers"], 4, **options)

    names = draw()
    assert len(names) == len(set(names)) == 4
    assert set(names) <= {"oak", "fern", "rose", "cactus", "moss", "palm"}
    assert draw() == names
    assert draw_vocabulary(["Sneakers"], 0, strategy=strategy, words=words) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Golden_Retrievers", "golden retriever"),
        ("T-shirts", "t shirt"),
        ("crane (bird)", "cranes"),
        ("ladies' watches", "lady watch"),
        ("foxes", "fox"),
        ("glasses", "glass"),
    ],
)
def test_names_that_are_the_same(one, other):
    assert normal_form(one).replace(" s ", " ") == normal_form(other)


@pytest.mark.parametrize("name", ["bus", "glass", "iris", "gas"])
def test_not_every_s_is_a_plural(name):
    assert normal_form(name) == name


def test_neither_a_task_class_nor_a_synonym_of_one():
    entries = word_list()
    assert len(entries) > 20_000
    names = eligible(entries, FASHION)
    forms = {normal_form(name) for name in names}
    assert len(forms) == len(names), "one name, one spelling"
    for name in (
        "sneaker",
        "tennis shoe",
        "gym shoe",
        "shirt",
        "top",
        "t shirt",
        "pullover",
        "dress",
        "frock",
        "ankle boot",
    ):
        assert name not in forms
    assert {"oak", "dog", "umbrella"} <= forms
    assert names == sorted(names)


def test_the_order_of_list_and_classes_does_not_matter(words):
    first = draw_vocabulary(["rose", "moss"], 3, words=words)
    words.write_text("\n".join(reversed(WORDS)))
    assert draw_vocabulary(["Moss", "roses"], 3, words=words) == first


def test_random_names_depend_on_the_seed_and_are_nested(words):
    assert draw_vocabulary(["a"], 3, words=words) == draw_vocabulary(["a"], 6, words=words)[:3]
    assert len({tuple(draw_vocabulary(["a"], 6, words=words, seed=seed)) for seed in range(5)}) > 1


def test_farthest_points_are_far_apart_and_hard_names_near():
    classes = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=1)
    angles = torch.tensor([0.1, 0.2, 1.4, 1.5, 3.9, 2.6])
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    arguments = ("abcdef", 2, torch.Generator())
    # The first is opposite to the middle of both classes; the next is the farthest from it and from them.
    assert STRATEGIES["farthest_point"](*arguments, class_features=classes, text_features=points) == [4, 5]
    assert STRATEGIES["hard"](*arguments, class_features=classes, text_features=points) == [0, 3]


def test_highest_spread():
    spread = torch.tensor([1.0, 5.0, 0.1, 3.0])
    drawn = torch.randn(100, 4) * spread + torch.tensor([9.0, 0.0, 99.0, -5.0])
    assert STRATEGIES["highest_spread"]("abcd", 2, torch.Generator(), logits=drawn) == [1, 3]


def test_mistakes(words, tmp_path):
    with pytest.raises(
        ConfigError, match=r"9 auxiliary names are asked for, but the word list '.*words.txt' has 6 that"
    ):
        draw_vocabulary(["sneaker"], 9, words=words)
    with pytest.raises(UnknownNameError, match="unknown vocabulary strategy 'randm'; did you mean 'random'"):
        draw_vocabulary(["sneaker"], 3, words=words, strategy="randm")
    with pytest.raises(ConfigError, match="'hard' needs class features, which are not at hand here"):
        draw_vocabulary(["sneaker"], 3, words=words, strategy="hard")
    with pytest.raises(DataError, match=r"word list '.*word.txt' does not exist; did you mean 'words.txt'\?"):
        draw_vocabulary(["sneaker"], 3, words=tmp_path / "word.txt")
    with pytest.raises(DataError, match=r"did you mean 'imagenet21k'\?"):
        draw_vocabulary(["sneaker"], 3, words="imagenet22k")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty.txt is empty; it should have one name a line"):
        draw_vocabulary(["sneaker"], 3, words=tmp_path / "empty.txt")
