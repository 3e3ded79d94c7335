"""How alike modules are: in effect, in weights, and which stand for which."""

from __future__ import annotations

import pytest
import torch

from vimlight.errors import DataError
from vimlight.plugins import list_plugins
from vimlight.zoo.likeness import END, Effect, features_of, likeness, near_duplicates, weights_alike

NOTHING = torch.zeros(16, 3, dtype=torch.float64)


@pytest.fixture
def probes():
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(8, 3, 32, 32, generator=generator) for _ in range(2)]


def drawn(seed, channels=200, count=40):
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def effect(change):
    return Effect.of(change, torch.zeros_like(change))


@pytest.mark.parametrize("kind", list_plugins())
def test_a_module_is_like_itself_everywhere(backbone, make_module, probes, kind):
    bare = features_of(backbone, None, probes)
    with_it = features_of(backbone, make_module(kind), probes)
    assert set(bare) == {END, *(site.name for site in backbone.blocks)}
    assert not torch.equal(bare[END], with_it[END])
    for place, features in with_it.items():
        alike = likeness(*[Effect.of(features, bare[place])] * 2)
        assert alike == (pytest.approx(1), 0, alike.cka)
        assert alike.cka in (None, pytest.approx(1))
        assert alike.least == pytest.approx(1)
    assert alike.cka is not None


def test_effects_are_compared_by_images_by_direction_and_by_strength():
    one, turn = drawn(0), torch.linalg.qr(drawn(1, count=200))[0]
    stronger = likeness(effect(one), effect(3 * one))
    assert stronger == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    turned = likeness(effect(one), effect(one @ turn))
    assert turned.cka == pytest.approx(1)
    assert abs(turned.cosine) < 0.1
    assert turned.least == turned.cosine
    assert likeness(effect(one), effect(-one)) == (pytest.approx(-1), pytest.approx(2), pytest.approx(1))


def test_unrelated_effects_are_unlike_though_images_are_few():
    """The plain estimate of CKA is above 0.8 for these."""
    values = [likeness(effect(drawn(seed)), effect(drawn(seed + 1))).cka for seed in range(0, 20, 2)]
    assert abs(sum(values) / len(values)) < 0.05


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (NOTHING, NOTHING, (1, 0, None)),
        (NOTHING, drawn(0, 3, 16), (0, 2, 0)),
        (NOTHING + 2, NOTHING + 2, (pytest.approx(1), 0, None)),
        (NOTHING + 2, NOTHING - 2, (pytest.approx(-1), 2, None)),
    ],
    ids=["nothing", "nothing and something", "the same for all images", "the opposite for all images"],
)
def test_effects_that_do_not_differ_between_images(one, two, expected):
    assert likeness(effect(one), effect(two)) == expected


def test_three_images_are_too_few(backbone, probes):
    with pytest.raises(DataError, match="3 images are too few to compare modules on; at least 4"):
        features_of(backbone, None, [probes[0][:3]])


def test_weights_are_compared_where_they_fit():
    one = {"same": torch.tensor([3.0, 4.0]), "shape": torch.ones(2), "dtype": torch.ones(1), "mine": torch.ones(1)}
    two = {"same": torch.tensor([4.0, 3.0]), "shape": torch.ones(3), "dtype": torch.ones(1).half()}
    alike, count = weights_alike(one, two)
    assert (alike.cosine, alike.difference, count) == (pytest.approx(0.96), pytest.approx(2**0.5 / 5), 1)
    assert alike.least == alike.cosine
    assert weights_alike({"a": torch.ones(1)}, {"b": torch.ones(1)}) == (None, 0)


def test_who_has_most_near_duplicates_stands_for_them():
    chain = {("a", "b"): 0.9, ("b", "c"): 0.9, ("a", "c"): 0.5, ("c", "d"): 0.89}
    assert near_duplicates(chain, "abcd", 0.9) == {"a": "b", "c": "b"}
    assert near_duplicates(chain, "abcd", 0.95) == {}
    # d is like c alone, which goes already: it stays.
    assert near_duplicates(chain, "abcd", 0.89) == {"a": "b", "c": "b"}
