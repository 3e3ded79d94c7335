from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from processes import run_in
from tiny_models import write_open_clip

from vimlight.cli import main
from vimlight.data import DownstreamDataModule
from vimlight.errors import CacheError, ConfigError, DataError, UnknownNameError
from vimlight.transmiter import LogitCache, check_paired
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.cache.encode import encode_images
from vimlight.transmiter.cache.heads import Vocabulary
from vimlight.transmiter.cache.images import ImageViews, read_ahead
from vimlight.transmiter.models.image_text import load_model

TEMPLATES = ["a {}.", "many {}"]
SHAPES = {"task": "shapes", "train": 90, "test": 40, "size": 32}


def files(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def shapes(**options):
    return DownstreamDataModule("scenes", SHAPES, **{"batch_size": 8, **options})


@pytest.fixture
def small():
    return load_model("vit_scenes_small")


@pytest.fixture
def small_parts(monkeypatch):
    """Makes parts of two batches, so that a small cache has several."""
    monkeypatch.setattr("vimlight.transmiter.cache.build._PART_ROWS", 16)


@pytest.fixture
def photos(tmp_path):
    """A folder of smooth photographs of two classes and several sizes."""
    for label, name in enumerate(("red_fox", "owl")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(4):
            rough = np.random.default_rng(10 * label + number).integers(0, 255, (5, 4, 3), dtype=np.uint8)
            Image.fromarray(rough).resize((40 + 9 * number, 50), Image.BICUBIC).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(("sigmoid", "resize_mode"), [(False, "shortest"), (True, "squash"), (False, "longest")])
def test_logits_are_those_of_open_clip(tmp_path, photos, sigmoid, resize_mode):
    name = write_open_clip(tmp_path / "model", sigmoid=sigmoid, resize_mode=resize_mode)
    data = DownstreamDataModule("image_folder", {"root": str(photos)}, batch_size=3)
    cache = build_cache(tmp_path / "cache", load_model(name), data, CacheSettings(templates=TEMPLATES))

    model, tokenizer = open_clip.create_model(name).eval(), open_clip.get_tokenizer(name)
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    images = torch.stack([transform(Image.open(photos / file)) for file in cache.ids])
    words = [word.replace("_", " ") for word in cache.class_names]
    with torch.no_grad():
        head = open_clip.build_zero_shot_classifier(model, tokenizer, words, TEMPLATES)
        features = model.encode_image(images, normalize=True)
        expected = model.logit_scale.exp() * features @ head + (model.logit_bias if sigmoid else 0.0)
    torch.testing.assert_close(cache.logits(), expected, rtol=0, atol=0.02 * model.logit_scale.exp().item())
    torch.testing.assert_close(cache.head.weights, head.T)
    assert [cache.class_names[label] for label in cache.labels] == [Path(file).parent.name for file in cache.ids]
    assert (cache.manifest.scale, cache.manifest.bias) == pytest.approx((load_model(name).scale, -10.0 * sigmoid))


def test_the_manifest_says_what_the_numbers_depend_on(tmp_path, small):
    settings = CacheSettings(
        split="test",
        templates="simple",
        aux_templates="{}",
        vocabulary=Vocabulary(num_logits=40, seed=3),
        partitions={"base": "0-5", "novel": ["ring", "heart", 11]},
    )
    manifest = build_cache(tmp_path / "cache", small, shapes(shots=2, seed=1), settings).manifest
    assert manifest.weights == small.weights
    assert manifest.preprocessing["size"] == [64, 64]
    assert manifest.preprocessing["resize_mode"] == "squash"
    assert len(manifest.text["templates"]) == 7
    assert manifest.text["aux_templates"] == ["{}"]
    assert manifest.partitions == {"base": [0, 1, 2, 3, 4, 5], "novel": [9, 10, 11]}
    assert manifest.data["dataset_args"] == SHAPES
    assert (manifest.data["shots"], manifest.data["seed"], manifest.split) == (2, 1, "test")
    assert (manifest.vocabulary["seed"], len(manifest.aux_names)) == (3, 28)
    assert manifest.model_arguments == {"name": "vit_scenes_small", "pretrained": None, "checkpoint": None,
                                        "precision": "32"}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_workers_changes_nothing(tmp_path, small, small_parts, workers):
    build_cache(tmp_path / "one", small, shapes())
    build_cache(tmp_path / "other", small, shapes(num_workers=workers))
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_worker_processes_end_without_an_error(small):
    table = shapes().tables["train"]
    rows = range(len(table))
    batches = read_ahead(table, small.image_input, rows, batch_size=8, num_workers=2, device=torch.device("cpu"))
    read = list(next(batches)["index"])
    workers = multiprocessing.active_children()
    read += [row for batch in batches for row in batch["index"]]
    for worker in workers:
        worker.join(timeout=20)
    assert read == list(rows)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_two_models_make_a_pair(tmp_path, small):
    settings = CacheSettings(vocabulary=Vocabulary(num_logits=30), views=3)
    data = shapes(shots=2, augment="photo")
    weak = build_cache(tmp_path / "weak", small, data, settings)
    strong = build_cache(tmp_path / "strong", load_model("vit_scenes_base"), shapes(shots=2, augment="photo"), settings)
    check_paired(weak, strong)
    assert weak.manifest.weights != strong.manifest.weights
    assert build_cache(tmp_path / "test", small, data, CacheSettings(split="test", views=3)).num_views == 1


def test_the_first_view_is_that_of_evaluation(tmp_path, small):
    plain = build_cache(tmp_path / "plain", small, shapes())
    several = build_cache(tmp_path / "several", small, shapes(augment="photo"), CacheSettings(views=3))
    assert torch.equal(several.features(), plain.features())
    views = torch.stack([several.features(view=view) for view in range(3)])
    likeness = (views[0] * views[1]).sum(dim=1), (views[0] * views[2]).sum(dim=1), (views[1] * views[2]).sum(dim=1)
    for values in likeness:
        assert 0.3 < values.mean() < 0.999, "a view is another picture of the same thing"


def test_names_that_another_cache_has(tmp_path, small):
    (tmp_path / "words.txt").write_text("\n".join(f"{colour} thing" for colour in ("red", "green", "blue", "grey")))
    drawn = Vocabulary(15, "hard", words=str(tmp_path / "words.txt"))
    weak = build_cache(tmp_path / "weak", small, shapes(), CacheSettings(vocabulary=drawn))
    same = Vocabulary(names=str(weak.path))
    strong = build_cache(tmp_path / "strong", load_model("vit_scenes_base"), shapes(), CacheSettings(vocabulary=same))
    check_paired(weak, strong)
    (tmp_path / "names.txt").write_text("oak\nfern\n")
    listed = CacheSettings(vocabulary=Vocabulary(names=str(tmp_path / "names.txt")))
    assert build_cache(tmp_path / "listed", small, shapes(), listed).aux_names == ("oak", "fern")
    wrong = CacheSettings(vocabulary=Vocabulary(15, names=str(tmp_path / "names.txt")))
    with pytest.raises(ConfigError, match=r"num_logits is 15, but 12 task classes and the 2 names of '.*' make 14"):
        build_cache(tmp_path / "wrong", small, shapes(), wrong)


def interrupted_after(model, batches):
    """Makes a model that is interrupted after some batches of images; returns the sizes of all it encodes."""
    seen = []
    encode = model.encode_image

    def counting(images):
        if len(seen) == batches:
            raise KeyboardInterrupt
        seen.append(len(images))
        return encode(images)

    model.encode_image = counting
    return seen


@pytest.mark.parametrize("views", [1, 2])
def test_an_interrupted_build_goes_on_to_the_same_bytes(tmp_path, small, small_parts, views):
    settings = CacheSettings(views=views, vocabulary=Vocabulary(num_logits=20))
    data = {"augment": "light"} if views > 1 else {}
    build_cache(tmp_path / "whole", small, shapes(**data), settings)
    # Two parts of two batches are done, and the fifth batch is on its way.
    seen = interrupted_after(small, 5 * views + 1)
    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path / "cache", small, shapes(**data), settings)
    with pytest.raises(CacheError, match="does not exist"):
        LogitCache.open(tmp_path / "cache")
    again = load_model("vit_scenes_small")
    later = interrupted_after(again, 10**6)
    build_cache(tmp_path / "cache", again, shapes(**data), settings)
    assert files(tmp_path / "cache") == files(tmp_path / "whole")
    assert sum(seen) + sum(later) < 1.5 * views * 78, "what was done is not done again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "whole"]


def test_an_interrupted_build_does_not_go_on_with_other_settings(tmp_path, small, small_parts):
    interrupted_after(small, 5)
    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path / "cache", small, shapes())
    other = load_model("vit_scenes_base")
    with pytest.raises(CacheError, match=r"a run with other settings \(model, .*weights, .*remove that dir"):
        build_cache(tmp_path / "cache", other, shapes())
    with pytest.raises(CacheError, match=r"a run with other settings \(batch_size\)"):
        build_cache(tmp_path / "cache", load_model("vit_scenes_small"), shapes(batch_size=16))


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_two_processes_build_the_cache_that_one_builds(tmp_path):
    arguments = [
        "cache", "build", "--model.name=vit_scenes_small", "--data=DownstreamDataModule", "--data.dataset=scenes",
        f"--data.dataset_args={json.dumps(SHAPES)}", "--data.batch_size=8", "--vocabulary.num_logits=30",
        "--device=cpu", "--views=2", "--data.augment=light",
    ]  # fmt: skip
    main([*arguments, f"--out={tmp_path / 'one'}"])
    # As torchrun starts them.
    printed = run_in(2, lambda: main([*arguments, f"--out={tmp_path / 'two'}"]), tmp_path)
    assert printed.count("images") == 1
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert len(LogitCache.open(tmp_path / "two")) > 3 * 16, "each process had a share"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_images_without_labels(tmp_path, small, photos):
    data = DownstreamDataModule("scenes", SHAPES, predict_folder=str(photos))
    cache = build_cache(tmp_path / "cache", small, data, CacheSettings(split="predict"))
    assert cache.labels is None
    assert sorted(cache.ids) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))


def test_features_that_are_no_numbers_name_the_image(tmp_path, small):
    encode = small.encode_image
    small.encode_image = lambda images: encode(images).index_fill(0, torch.tensor([1]), torch.nan)
    data = shapes()
    with pytest.raises(DataError, match=rf"row 1 \(id '{data.tables['train'].ids[1]}'\), column 0: nan is not finite"):
        build_cache(tmp_path / "cache", small, data)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(tmp_path, small, photos, workers):
    def data(**options):
        return DownstreamDataModule("image_folder", {"root": str(photos)}, num_workers=workers, batch_size=2, **options)

    broken = data().tables["train"].ids[-1]
    (photos / broken).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=rf"cannot read image .*{broken}.*skip_corrupt: true"):
        build_cache(tmp_path / "cache", small, data())
    with pytest.warns(UserWarning, match="skipped 1 of 8 images"):
        assert broken not in list(build_cache(tmp_path / "sound", small, data(skip_corrupt=True)).ids)


@pytest.mark.parametrize(
    ("data", "settings", "error", "message"),
    [
        ({}, {"split": "tset"}, UnknownNameError, "unknown split 'tset'; did you mean 'test'"),
        ({}, {"views": 2}, ConfigError, "views: 2 would all be the same; set the data's augment to light, photo or"),
        ({}, {"views": 0}, ConfigError, "views must be at least 1, got 0"),
        ({}, {"vocabulary": Vocabulary(num_logits=5)}, ConfigError, "num_logits is 5, but there are 12 task classes"),
        ({}, {"vocabulary": Vocabulary(names="lost.txt")}, DataError, "names 'lost.txt' are neither a text file nor"),
        (
            {},
            {"vocabulary": Vocabulary(20, "highest_spread")},
            ConfigError,
            "'highest_spread' needs logits, which are not at hand here; use it with `vimlight cache head`",
        ),
        (
            {},
            {"partitions": {"base": "0-12"}},
            ConfigError,
            "partition 'base': '0-12' is not among the classes 0 to 11",
        ),
        ({}, {"partitions": {"base": ["hart"]}}, ConfigError, "unknown class 'hart'; did you mean 'heart'?"),
        (
            {"dataset_args": {"task": "attributes", "train": 20, "test": 8}},
            {},
            DataError,
            "data set 'scenes' is multilabel; a cache takes classifications",
        ),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, small, data, settings, error, message):
    module = DownstreamDataModule("scenes", **{"dataset_args": SHAPES, **data})
    with pytest.raises(error, match=message):
        build_cache(tmp_path / "cache", small, module, CacheSettings(**settings))
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_there_is_not_built_again(tmp_path, small):
    build_cache(tmp_path / "cache", small, shapes())
    small.encode_image = None
    with pytest.raises(CacheError, match="exists; choose another directory or pass --overwrite"):
        build_cache(tmp_path / "cache", small, shapes())


@pytest.mark.slow
def test_little_is_spent_beside_the_model(tmp_path, small):
    inside = 0.0
    encode = small.encode_image

    def timed(images):
        nonlocal inside
        start = time.thread_time()
        features = encode(images)
        inside += time.thread_time() - start
        return features

    small.encode_image = timed
    data = DownstreamDataModule("scenes", {"task": "shapes", "train": 1500, "test": 8, "size": 64}, batch_size=64)
    _ = data.tables, small.weights
    start = time.process_time()
    build_cache(tmp_path / "cache", small, data)
    # Processor time of all threads: of reading, preparing, checking, writing and hashing too.
    assert inside > 0.95 * (time.process_time() - start)


@pytest.mark.cuda
def test_a_build_on_a_gpu_is_close_to_one_on_the_cpu(tmp_path, small):
    cpu = build_cache(tmp_path / "cpu", small, shapes())
    for precision, likeness in (("32", 0.9999), ("16", 0.999), ("bf16", 0.99)):
        gpu = build_cache(tmp_path / f"gpu{precision}", small.to("cuda", precision), shapes(num_workers=2))
        assert ((cpu.features() * gpu.features()).sum(dim=1) > likeness).all()
        check_paired(cpu, gpu)


def test_images_are_encoded_in_order(small):
    table = shapes().tables["train"]
    views = ImageViews(small.image_input)
    rows = [5, 3, 70, 0, 1]
    found = torch.cat(list(encode_images(small, table, views, rows, batch_size=2)))
    whole = torch.cat(list(encode_images(small, table, views, range(len(table)), batch_size=16)))
    torch.testing.assert_close(found, whole[rows], rtol=0, atol=1e-5)


def test_the_background_of_transparent_images_is_part_of_a_cache(tmp_path, small):
    for number in range(5):
        (tmp_path / "clear" / "owl").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clear" / "owl" / f"{number}.png")

    def built(name, colour):
        data = DownstreamDataModule("image_folder", {"root": str(tmp_path / "clear")}, background=colour)
        vocabulary = Vocabulary(num_logits=3)
        return build_cache(tmp_path / name, small, data, CacheSettings(split="test", vocabulary=vocabulary))

    white, black = built("white", "white"), built("black", "black")
    assert (white.manifest.data["background"], black.manifest.data["background"]) == ("white", "black")
    assert not torch.equal(white.logits(), black.logits())
