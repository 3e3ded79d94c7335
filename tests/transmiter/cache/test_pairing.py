from __future__ import annotations

import pytest
import torch
from tiny_caches import AUX, CLASSES, random_features, random_head

from vimlight.errors import CacheError
from vimlight.transmiter import check_paired

IDS = [f"images/{row}.png" for row in range(20)]


def test_two_models_on_the_same_images_are_a_pair(make_cache):
    other = make_cache("other", features=random_features(width=6, seed=3), head=random_head(width=6), model="other")
    check_paired(make_cache(), other)
    check_paired(make_cache("bare", logits=torch.randn(20, 5), labels=None), other)


def test_a_fine_tuned_source_may_have_the_task_columns_alone(make_cache):
    tuned = make_cache("tuned", logits=torch.randn(20, 3), aux_names=())
    check_paired(make_cache(), tuned, task_only=True)
    with pytest.raises(CacheError, match=r"other auxiliary classes: missing in the second \['oak', 'fern'\]; extra"):
        check_paired(make_cache("whole"), tuned)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": random_features(18)}, "hold 20 and 18 images"),
        (
            {"ids": [*IDS[:4], IDS[5], IDS[4], *IDS[6:]]},
            r"the same images in another order: row 4 is 'images/4.png' in the first and 'images/5.png' in the second",
        ),
        ({"ids": [*IDS[:-1], "new.png"]}, "show other images: row 19 is 'images/19.png' in the first and 'new.png'"),
        ({"labels": torch.arange(20).roll(1) % 3}, "disagree on 20 labels: row 0 is 'cat' in the first and 'dog'"),
        ({"features": random_features(views=2)}, "have 1 and 2 views"),
        (
            {"class_names": ("cat", "cow", "fish")},
            r"other classes: missing in the second \['dog'\]; extra in the second \['cow'\]",
        ),
        (
            {"class_names": CLASSES[:2], "aux_names": (*AUX, "x"), "labels": None},
            r"other classes: missing in the second \['fish'\]; extra in the second none",
        ),
        (
            {"class_names": ("dog", "cat", "fish"), "labels": None},
            "the same classes in another order: column 0 is 'cat' in the first and 'dog' in the second",
        ),
        ({"aux_names": ("fern", "oak")}, "the same auxiliary classes in another order: column 0 is 'oak'"),
    ],
)
def test_what_is_no_pair(make_cache, changes, message):
    if "features" in changes:
        changes = {**changes, "ids": IDS[: len(changes["features"])]}
    with pytest.raises(CacheError, match=message):
        check_paired(make_cache(), make_cache("other", **changes))


def test_views_must_be_augmented_alike(make_cache):
    first = make_cache(features=random_features(views=2), augmentation={"name": "photo", "seed": 0})
    second = make_cache("other", features=random_features(views=2), augmentation={"name": "photo", "seed": 1})
    with pytest.raises(CacheError, match="differently augmented views"):
        check_paired(first, second)
