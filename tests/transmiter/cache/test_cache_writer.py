from __future__ import annotations

import pytest
import torch
from tiny_caches import AUX, CLASSES, random_features, random_head

from vimlight.errors import CacheError, DataError
from vimlight.transmiter import LogitCache, write_cache
from vimlight.transmiter.cache import CacheWriter, Manifest

IDS = [f"images/{row}.png" for row in range(20)]
MANIFEST = Manifest("tiny", "train", CLASSES, AUX, views=2, width=8, dtype="float16")


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def writer(path, **options):
    return CacheWriter(path, MANIFEST, **{"ids": IDS, "labels": torch.arange(20) % 3, "part_rows": 6, **options})


@pytest.fixture
def expected(tmp_path):
    """The files of the cache that the parts shall make, and its features."""
    features = random_features(views=2)
    write_cache(
        tmp_path / "expected",
        features=features,
        head=random_head(),
        class_names=CLASSES,
        aux_names=AUX,
        labels=torch.arange(20) % 3,
        ids=IDS,
        split="train",
        model="tiny",
    )
    return files(tmp_path / "expected"), features


@pytest.mark.parametrize("block", [1, 4, 6, 7, 20])
def test_rows_appended_in_blocks_of_any_size(tmp_path, expected, block):
    target = writer(tmp_path / "cache")
    for rows in expected[1].split(block):
        target.append(rows)
    target.finish(random_head())
    assert files(tmp_path / "cache") == expected[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "expected"]


def test_an_interrupted_writing_goes_on_where_it_stopped(tmp_path, expected):
    first = writer(tmp_path / "cache")
    first.append(expected[1][:14])
    assert first.position == 14
    with pytest.raises(CacheError, match="does not exist"):
        LogitCache.open(tmp_path / "cache")
    second = writer(tmp_path / "cache")
    assert second.position == 12, "what was never a whole part is lost"
    second.append(expected[1][12:])
    assert second.position == 20
    second.finish(random_head())
    assert files(tmp_path / "cache") == expected[0]


def test_more_rows_than_ids(tmp_path, expected):
    target = writer(tmp_path / "cache")
    with pytest.raises(DataError, match=r"3 rows more than the 20 ids of '.*cache'"):
        target.append(torch.cat([expected[1], expected[1][:3]]))


def test_parts_in_any_order_by_several_writers(tmp_path, expected):
    one, two = writer(tmp_path / "cache"), writer(tmp_path / "cache")
    for target, part in ((two, 3), (one, 0), (two, 1), (one, 2)):
        rows = target.part_range(part)
        target.put(part, expected[1][rows.start : rows.stop])
    assert one.missing() == []
    one.finish(random_head())
    assert files(tmp_path / "cache") == expected[0]


def test_a_missing_or_damaged_part(tmp_path, expected):
    target = writer(tmp_path / "cache")
    target.append(expected[1][:12])
    with pytest.raises(CacheError, match=r"2 of 4 parts of cache .* are not written, the first is part 2"):
        target.finish(random_head())
    target.append(expected[1][12:])
    assert target.missing() == []
    for path in (tmp_path / ".cache.partial").glob("*/part-00000001*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(CacheError, match="part 1 was damaged and is removed"):
        target.finish(random_head())
    assert not (tmp_path / "cache").exists()
    target.put(1, expected[1][6:12])
    target.finish(random_head())
    assert files(tmp_path / "cache") == expected[0]


def test_a_run_with_other_settings_does_not_go_on(tmp_path):
    writer(tmp_path / "cache", part_rows=3)
    writer(tmp_path / "cache").put(0, random_features(6, views=2))
    with pytest.raises(CacheError, match=r"holds a run with other settings \(labels\) that was interrupted"):
        writer(tmp_path / "cache", labels=None)
    with pytest.raises(CacheError, match=r"a run with other settings \(part_rows, ids\) that was interrupted"):
        writer(tmp_path / "cache", ids=[*IDS[:-1], "x"], part_rows=5)


@pytest.mark.parametrize("plan", ["", "{", "[]", "[" * 9999])
def test_a_damaged_plan_of_another_run(tmp_path, plan):
    writer(tmp_path / "cache").put(0, random_features(6, views=2))
    (file,) = (tmp_path / ".cache.partial").glob("*/plan.json")
    file.write_text(plan)
    with pytest.raises(CacheError, match=r"holds a run with other settings .* take another name, or remove that dir"):
        writer(tmp_path / "cache", labels=None)


def test_two_runs_of_other_settings_at_the_same_moment_do_not_mix(tmp_path, expected):
    others = random_features(views=2, seed=7)
    one, two = writer(tmp_path / "cache"), writer(tmp_path / "cache", settings={"seed": 1})
    for part in range(4):
        rows = one.part_range(part)
        for target, values in ((two, others), (one, expected[1])) if part % 2 else ((one, expected[1]), (two, others)):
            if part in target.missing():
                target.put(part, values[rows.start : rows.stop])
    one.finish(random_head())
    with pytest.raises(CacheError, match="was written by another process meanwhile"):
        two.finish(random_head())
    assert files(tmp_path / "cache") == expected[0]


def test_two_runs_of_the_same_settings_of_which_one_is_faster(tmp_path, expected):
    one, two = writer(tmp_path / "cache"), writer(tmp_path / "cache")
    one.append(expected[1])
    one.finish(random_head())
    for late in (lambda: two.put(0, expected[1][:6]), lambda: two.finish(random_head())):
        with pytest.raises(CacheError, match="was finished or removed by another process meanwhile"):
            late()
    assert files(tmp_path / "cache") == expected[0]


def test_who_begins_as_another_finishes_leaves_nothing(tmp_path, expected, monkeypatch):
    one = writer(tmp_path / "cache")
    one.append(expected[1])
    with monkeypatch.context() as patch:
        # It looked for the cache before that was there.
        patch.setattr("vimlight.transmiter.cache.writer.refuse_existing", lambda *_: None)
        one.finish(random_head())
        late = writer(tmp_path / "cache")
    late.append(expected[1])
    with pytest.raises(CacheError, match="was written by another process meanwhile"):
        late.finish(random_head())
    assert list(tmp_path.glob(".cache*")) == []
    assert files(tmp_path / "cache") == expected[0]


def test_parts_say_which_they_are(tmp_path, expected):
    target = writer(tmp_path / "cache")
    target.append(expected[1])
    one, two = sorted((tmp_path / ".cache.partial").glob("*/part-*.npz"))[1:3]
    one.write_bytes(two.read_bytes())
    with pytest.raises(CacheError, match=r"part 1 was damaged and is removed \(it is part 2\); run it again"):
        target.finish(random_head())


def test_a_cache_is_replaced_only_if_asked(make_cache, tmp_path):
    make_cache()
    with pytest.raises(CacheError, match=r"exists; choose another directory or pass --overwrite"):
        make_cache()
    new = make_cache(split="test", overwrite=True)
    assert LogitCache.open(new.path).split == "test"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(CacheError, match="is no logit cache and is not replaced"):
        make_cache("mine", overwrite=True)


FEATURES, LOGITS = random_features(views=2), torch.randn(20, 5)


def spoilt(values, *place, value=float("nan")):
    values = values.clone()
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features": spoilt(FEATURES, 7, 1, 3)},
            r"features, row 7 \(id 'images/7.png'\), view 1, column 3: nan is not finite",
        ),
        ({"logits": spoilt(LOGITS, 4, 2, value=float("inf"))}, r"logits, row 4 \(id 'images/4.png'\), column 2: inf"),
        ({"features": spoilt(FEATURES, 9, 0, value=0)}, r"row 9 \(id 'images/9.png'\), view 0: all features are zero"),
        ({"logits": spoilt(LOGITS, 3, value=2.5)}, r"row 3 \(id 'images/3.png'\): all logits equal 2.5; leave"),
        ({"labels": torch.arange(20) % 4}, r"label 3 of row 3 \(id 'images/3.png'\) is not among the 3 task classes"),
        ({"labels": torch.arange(19) % 3}, r"labels are \(19,\), expected \(20,\)"),
        ({"labels": torch.zeros(20)}, r"labels must be integers, the indices of the classes, got torch.float32"),
        ({"ids": [*IDS[:-1], IDS[2]]}, r"id 'images/2.png' occurs twice: in rows 2 and 19"),
        ({"ids": IDS[:3]}, "3 ids for 20 images"),
        ({"ids": [*IDS[:-1], "a\nb"]}, "of row 19 must be a text without line breaks"),
        (
            {"class_names": ("cat", "dog", "cat")},
            "class name 'cat' occurs twice: as task class in column 0 and as task",
        ),
        ({"aux_names": ("oak", "dog")}, "'dog' occurs twice: as task class in column 1 and as auxiliary class in col"),
        ({"aux_names": ("oak", " ")}, "class 4 has an empty name"),
        ({"class_names": (), "labels": None}, "at least one task class"),
        ({"head": random_head(4)}, r"the text head is \(4, 8\), expected \(5, 8\)"),
        ({"head": random_head(width=7)}, r"the text head is \(5, 7\), expected \(5, 8\)"),
        ({"logits": torch.randn(20, 6)}, "the logits have 6 columns, but there are 5 class names"),
        ({"logits": torch.randn(20)}, r"expected an array of two axes, or three with views, got \(20,\)"),
        ({"head": None}, "give either logits, or features together with a head"),
        ({"partitions": {"base": [0, 3]}}, "partition 'base': class 3 is not among the 3 task classes"),
        ({"partitions": {"base": [0, 0]}}, "partition 'base' names a class twice"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(make_cache, tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        make_cache(**changes)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_head_names_its_row(make_cache):
    for value, fault in ((float("nan"), "not all values are finite"), (0.0, "all values are zero")):
        head = random_head()
        object.__setattr__(head, "weights", spoilt(head.weights, 2, value=value))
        with pytest.raises(DataError, match=f"text head, row 2: {fault}"):
            make_cache(head=head)
