from __future__ import annotations

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_caches import AUX, CLASSES, random_features, random_head

from vimlight.errors import CacheError, DataError
from vimlight.transmiter import LogitCache
from vimlight.transmiter.cache.files import CacheFiles
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.names import SomeNames


@pytest.mark.parametrize(("views", "scale", "bias"), [(1, 100.0, 0.0), (3, 12.5, -10.0)])
def test_logits_are_scaled_cosines_plus_bias(make_cache, views, scale, bias):
    features, head = random_features(views=views), random_head(scale=scale, bias=bias)
    cache = make_cache(features=features, head=head)
    for view in range(views):
        expected = scale * F.normalize(features[:, view], dim=1) @ head.weights.T + bias
        # Features are kept in half precision.
        torch.testing.assert_close(cache.logits(view=view), expected, rtol=0, atol=1e-3 * scale)
        torch.testing.assert_close(cache.features(view=view).norm(dim=1), torch.ones(20))
    assert (cache.num_views, cache.num_classes, cache.num_logits, cache.width, len(cache)) == (views, 3, 5, 8, 20)
    assert (cache.class_names, cache.aux_names, cache.split, cache.model) == (CLASSES, AUX, "train", "tiny")


def test_bare_logits_come_back_as_they_were(make_cache):
    logits = torch.randn(20, 5)
    cache = make_cache(logits=logits)
    assert torch.equal(cache.logits(), logits)
    assert cache.head is None
    assert cache.width is None
    with pytest.raises(DataError, match="holds bare logits, no features"):
        cache.features()


@pytest.mark.parametrize("kind", ["features", "logits"])
@pytest.mark.parametrize(
    "rows", [slice(3, 9), torch.tensor([7, 1, 1]), [4, 2], range(5), torch.arange(20) % 4 == 0], ids=str
)
def test_any_rows_and_columns(make_cache, kind, rows):
    cache = make_cache(**({"logits": torch.randn(20, 5)} if kind == "logits" else {}))
    chosen = torch.arange(20)[rows if isinstance(rows, (slice, torch.Tensor)) else list(rows)]
    torch.testing.assert_close(cache.logits(rows), cache.logits()[chosen])
    for columns in (slice(0, 3), [3, 0], torch.tensor([4])):
        torch.testing.assert_close(cache.logits(rows, columns=columns), cache.logits(rows)[:, columns])


def test_batches_go_image_by_image_and_view_by_view(make_cache):
    cache = make_cache(features=random_features(views=3))
    expected = torch.stack([cache.logits(view=view) for view in range(3)], dim=1).flatten(0, 1)
    for size in (1, 7, 60, 1000):
        batches = list(cache.batches(size))
        assert all(len(batch) == size for batch in batches[:-1])
        torch.testing.assert_close(torch.cat(batches), expected)
    torch.testing.assert_close(torch.cat(list(cache.batches(7, views=2))), cache.logits(view=2))


def test_ids_and_labels(make_cache):
    names = ["a/é 1.png", "b", *(f"c{row}" for row in range(18))]
    cache = make_cache(ids=names)
    assert list(cache.ids) == names
    assert (cache.ids[0], cache.ids[-1], cache.ids[1:3], len(cache.ids)) == (names[0], "c17", ["b", "c0"], 20)
    with pytest.raises(IndexError):
        _ = cache.ids[20]
    assert torch.equal(cache.labels, torch.arange(20) % 3)
    assert make_cache("unlabelled", labels=None).labels is None


def test_some_ids_are_read_when_they_are_asked_for(make_cache):
    cache = make_cache()
    some = SomeNames(cache.ids, np.array([4, 0, 19]))
    assert list(some) == [cache.ids[4], cache.ids[0], cache.ids[19]]
    assert (len(some), some[-1], list(some[1:])) == (3, cache.ids[19], [cache.ids[0], cache.ids[19]])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says what of a file is in memory")
def test_rows_that_were_read_take_no_memory(make_cache):
    cache = make_cache(features=random_features(rows=5000))
    for rows in (slice(0, 5000), torch.arange(5000), [4999, 0]):
        cache.logits(rows)
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        held = [next(line for line in lines if line.startswith("Rss:")) for line in lines if "features.npy" in line]
        assert held
        assert all(line.split()[1] == "0" for line in held)


def test_another_process_opens_the_cache_anew(make_cache):
    cache = make_cache(features=random_features(rows=2000))
    sent = pickle.dumps(cache)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).logits(), cache.logits())


def test_there_is_no_such_view(make_cache):
    with pytest.raises(DataError, match="has 1 views, so there is no view 1"):
        make_cache().logits(view=1)


def test_the_same_content_has_the_same_bytes_and_hash(make_cache):
    first, second = make_cache("first"), make_cache("second")
    assert first.hash == second.hash
    assert {path.name: path.read_bytes() for path in first.path.iterdir()} == {
        path.name: path.read_bytes() for path in second.path.iterdir()
    }
    assert make_cache("third", split="test").hash != first.hash
    assert make_cache("fourth", features=random_features(seed=5)).hash != first.hash


def test_verify_finds_a_tampered_file(make_cache):
    cache = make_cache()
    assert cache.verify() == []
    for path in sorted(cache.path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        if path.name == "manifest.json":
            with pytest.raises(CacheError, match=r"manifest.json (was altered|is damaged)"):
                LogitCache.open(cache.path)
        else:
            assert cache.verify() == [f"{path.name} was altered after it was written (its SHA-256 differs)"]
        path.write_bytes(whole)
    (cache.path / "notes.txt").write_text("mine")
    (cache.path / "labels.npy").unlink()
    assert cache.verify() == ["labels.npy is missing", "notes.txt is no file of the cache"]


def test_a_cache_that_is_not_whole_is_not_opened(make_cache):
    cache = make_cache()
    with pytest.raises(CacheError, match=r"'.*cach' does not exist; did you mean '.*cache'\?"):
        LogitCache.open(cache.path.with_name("cach"))
    with pytest.raises(CacheError, match=r"is no logit cache: it has no manifest.json"):
        LogitCache.open(cache.path.parent)
    features = cache.path / "features.npy"
    features.write_bytes(features.read_bytes()[:-8])
    with pytest.raises(CacheError, match=r"not whole: features.npy has 440 bytes instead of 448"):
        LogitCache.open(cache.path)
    features.unlink()
    with pytest.raises(CacheError, match=r"not whole: features.npy is missing"):
        LogitCache.open(cache.path)


def test_a_newer_format_is_refused(make_cache):
    path = make_cache().path / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CacheError, match=r"is not read: written by a newer vimlight \(format 2, this"):
        LogitCache.open(path.parent)


def test_a_million_images_open_at_once(tmp_path):
    rows, width = 1_300_000, 512
    manifest = Manifest("big", "train", CLASSES, AUX, rows, 1, width, "float16", 100.0, 0.0)
    files = CacheFiles(tmp_path)
    files.array("head.npy", random_head(width=width).weights.numpy())
    # A file with a hole takes no room on the disk.
    np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float16, manifest.shape)[-1] = 1
    files.names([f"train/n{row:08d}.JPEG" for row in range(rows)])
    size = (tmp_path / "features.npy").stat().st_size
    files.entries["features.npy"] = type(files.entries["head.npy"])(size, "0" * 64)
    files.manifest(manifest)
    start = time.perf_counter()
    cache = LogitCache.open(tmp_path)
    rows_read = cache.logits([rows - 1, 5])
    last = cache.ids[-1]
    assert time.perf_counter() - start < 0.1
    assert last == f"train/n{rows - 1:08d}.JPEG"
    assert rows_read.shape == (2, 5)
