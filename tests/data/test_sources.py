from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import write_idx, write_image
from tiny_sources import RNG, WITH_TARGETS_IN_IMAGES, arguments_of, files, idx_folder, saved_hub_set, write_csv

from vimlight.data import SOURCES, Source, list_sources, load_source
from vimlight.data.scenes import SCENE_TASKS
from vimlight.errors import ConfigError, DataError, UnknownNameError, VimlightError
from vimlight.tasks import TASKS


@pytest.mark.parametrize("name", list_sources())
def test_every_source_keeps_the_contract(name, flowers, untouched_rng):
    arguments = arguments_of(name, flowers)
    source = load_source(name, arguments)
    tables = source.tables
    ids = [table_id for split, table in tables.items() if split != "final" for table_id in table.ids]
    assert len(ids) == len(set(ids))
    for table in tables.values():
        if isinstance(table.targets, torch.Tensor):
            assert table.targets.dtype == torch.int64
            assert int(table.targets.max()) < len(source.class_names)
        layout = TASKS[source.kind].layout
        layout.collate(table.examples([0], layout)[1])
        assert (layout.spatial and Path(table.place(0)).is_file()) == (name in WITH_TARGETS_IN_IMAGES)
        assert table.image(0).shape[0] == 3
        assert table.image(0).dtype == torch.uint8
    assert load_source(name, arguments).train.ids == source.train.ids


def shown(source):
    """Returns, for each part, the names of the classes that each image shows, by the image's id."""
    layout, count = TASKS[source.kind].layout, len(source.class_names)

    def names(table):
        classes = layout.classes(table.targets, count)
        flags = torch.nn.functional.one_hot(classes, count) if classes.ndim == 1 else classes
        rows = [{source.class_names[index] for index in row.nonzero().flatten().tolist()} for row in flags]
        return dict(zip(table.ids, rows, strict=True))

    return [names(table) for table in source.tables.values()]


@pytest.mark.parametrize("name", list_sources())
def test_every_source_lets_its_classes_be_ordered_and_chosen(name, flowers):
    arguments = arguments_of(name, flowers)
    source = load_source(name, arguments)
    if TASKS[source.kind].layout.classes(source.train.targets, len(source.class_names)) is None:
        with pytest.raises(VimlightError, match=r"unknown class of data set .*'x'; valid: none"):
            load_source(name, {**arguments, "classes": ["x"]})
        return
    turned = load_source(name, {**arguments, "classes": list(reversed(source.class_names))})
    assert turned.class_names == tuple(reversed(source.class_names))
    before = shown(source)
    assert shown(turned) == before
    everywhere = set.intersection(*(set().union(*part.values()) for part in before))
    last = max(everywhere, key=source.class_names.index)
    with pytest.raises(UnknownNameError, match=rf"unknown class of .*'{last}z'; did you mean .*'{last}'"):
        load_source(name, {**arguments, "classes": [f"{last}z"]})
    with pytest.raises(ConfigError, match="each once"):
        load_source(name, {**arguments, "classes": [last, last]})
    if len(set().union(*(names for part in before for names in part.values()))) > 1:
        with pytest.warns(UserWarning, match=r"left out what is of the \d+ classes not chosen: '"):
            one = load_source(name, {**arguments, "classes": [last]})
        assert one.class_names == (last,)
        for all_images, found in zip(before, shown(one), strict=True):
            assert {image for image in found if found[image]} == {i for i in all_images if last in all_images[i]}


def test_a_source_registers_from_outside():
    @SOURCES.register("outside", replace=True)
    def outside(count: int) -> Source:
        raise DataError(f"count is {count}")

    with pytest.raises(DataError, match="count is 3"):
        load_source("outside", {"count": 3})
    del SOURCES._entries["outside"]


@pytest.mark.parametrize(
    ("name", "arguments", "error", "text"),
    [
        ("digist", {}, UnknownNameError, r"unknown data set 'digist'; did you mean 'digits'"),
        ("digits", {"shots": 3}, UnknownNameError, r"unknown argument of data set 'digits': 'shots'; valid: classes"),
        ("image_folder", {"rot": "x"}, UnknownNameError, r"'image_folder': 'rot'; did you mean 'root'\?"),
        ("image_folder", {}, ConfigError, r"data set 'image_folder' needs the argument 'root'"),
        ("image_folder", {"root": 3}, ConfigError, r"'image_folder': .*\"root\": Expected .*str.* Got value: 3"),
        ("torchvision", {"name": "CIFR10"}, UnknownNameError, r"torchvision data set 'CIFR10'; did you mean 'CIFAR10'"),
        ("torchvision", {"name": "CIFAR10"}, ConfigError, r"torchvision's CIFAR10 needs the folder of its data"),
        ("torchvision", {"name": "FakeData", "arguments": {"sise": 3}}, ConfigError, r"FakeData: .*'sise'"),
        ("fashion_mnist", {"root": "/nowhere"}, DataError, r"not in /nowhere: run `apt-get install dataset-f"),
        ("manifest", {"path": "/nowhere.csv"}, DataError, r"manifest /nowhere.csv does not exist"),
    ],
)
def test_mistakes_are_named(name, arguments, error, text):
    with pytest.raises(error, match=text):
        load_source(name, arguments)


def test_digits_split_is_fixed_and_stratified():
    source = load_source("digits")
    assert len(source.train) + len(source.test) == 1797
    assert source.test.targets.bincount().min() >= 85
    assert source.train.image(0).shape == (3, 8, 8)
    assert int(torch.as_tensor(source.train.images(range(200))).max()) == 255


def test_image_folder_reads_the_layout_with_splits(flowers):
    (flowers.parent / "split").mkdir()
    for split in ("train", "valid", "test"):
        shutil.copytree(flowers, flowers.parent / "split" / split)
    shutil.rmtree(flowers.parent / "split" / "test" / "rose")
    source = load_source("image_folder", {"root": str(flowers.parent / "split")})
    assert source.class_names == ("aster", "rose", "tulip")
    assert (len(source.train), len(source.val), len(source.test)) == (21, 21, 14)
    assert source.test.targets.unique().tolist() == [0, 2]
    assert source.val.ids[0] == "valid/aster/0.png"


def test_image_folder_takes_a_class_called_train_for_a_class(flowers):
    (flowers / "rose").rename(flowers / "train")
    source = load_source("image_folder", {"root": str(flowers)})
    assert source.class_names == ("aster", "train", "tulip")
    assert source.test is None
    assert source.train.targets.unique().tolist() == [0, 1, 2]


def test_image_folder_errors(flowers):
    with pytest.raises(DataError, match=r"folder .*flwoers does not exist; did you mean .*flowers\?"):
        load_source("image_folder", {"root": str(flowers.parent / "flwoers")})
    (flowers / "lily").mkdir()
    with pytest.raises(DataError, match=r"folder .*lily holds no image \(.bmp"):
        load_source("image_folder", {"root": str(flowers)})
    with pytest.raises(DataError, match=r"no class folder in .*lily; expected .*CLASS/\*.png"):
        load_source("image_folder", {"root": str(flowers / "lily")})


def test_image_folder_names_a_class_that_only_the_test_part_has(flowers):
    write_image(flowers.parent / "split" / "test" / "tullip" / "0.png")
    shutil.copytree(flowers, flowers.parent / "split" / "train")
    with pytest.raises(UnknownNameError, match=r"unknown class folder in .*test 'tullip'; did you mean 'tulip'"):
        load_source("image_folder", {"root": str(flowers.parent / "split")})


def test_idx_files_plain_or_damaged(flowers):
    arguments = idx_folder(flowers)
    packed = flowers.parent / "fashion" / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:900])
    with pytest.raises(DataError, match=r"cannot read .*t10k-images-idx3-ubyte\[.gz\]"):
        load_source("fashion_mnist", arguments)
    packed.unlink()
    plain = packed.with_suffix("")
    write_idx(plain, RNG.integers(0, 255, (20, 28, 28)))
    assert len(load_source("fashion_mnist", arguments).test) == 20
    plain.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte is not a whole idx file of bytes"):
        load_source("fashion_mnist", arguments)


def test_manifest_with_splits_and_classes(flowers):
    names = ["train"] * 15 + ["valid"] * 3 + ["test"] * 3
    rows = [(p.relative_to(flowers).as_posix(), p.parent.name, s) for p, s in zip(files(flowers), names, strict=True)]
    arguments = write_csv(flowers / "all.csv", ["file", "class", "split"], rows)
    arguments |= {"path_column": "file", "label_column": "class", "classes": ["tulip", "rose", "aster"]}
    source = load_source("manifest", arguments)
    assert (len(source.train), len(source.val), len(source.test)) == (15, 3, 3)
    assert source.train.targets[0] == 2
    assert source.train.ids[0] == "aster/0.png"


def test_manifest_in_parquet(flowers):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = [path.relative_to(flowers).as_posix() for path in files(flowers)]
    table = pyarrow.table({"path": paths, "label": [path.split("/")[0] for path in paths]})
    parquet.write_table(table, flowers / "all.parquet")
    source = load_source("manifest", {"path": str(flowers / "all.parquet")})
    assert source.train.targets.bincount().tolist() == [6, 7, 8]


def test_manifest_with_several_labels(flowers):
    labels = ["red|tall", "red", "", "tall|wild"]
    rows = [(path.relative_to(flowers).as_posix(), label) for path, label in zip(files(flowers), labels, strict=False)]
    arguments = write_csv(flowers / "all.csv", ["path", "label"], rows)
    source = load_source("manifest", arguments)
    assert source.kind == "multilabel"
    assert source.class_names == ("red", "tall", "wild")
    assert source.train.targets.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]]
    with pytest.raises(DataError, match="row 3 has no label"):
        load_source("manifest", {**arguments, "separator": None})


@pytest.mark.parametrize(
    ("header", "row", "options", "error", "text"),
    [
        (["path", "labels"], ("0.png", "a"), {}, UnknownNameError, r"column of .*csv 'label'; did you mean 'labels'"),
        (["path", "label"], ("0.png", "a"), {"classes": ["b"]}, UnknownNameError, r"class of .* 'all' 'b'; valid: a"),
        (["path", "label"], ("9.png", "a"), {}, DataError, r"1 of 1 images do not exist; the first: .*9.png"),
        (["path", "label", "split"], ("0.png", "a", "tran"), {}, UnknownNameError, r"split in row 1 .*'tran'.*'train'"),
        (["path", "label", "split"], ("0.png", "a", "test"), {}, DataError, r"no row says 'train' in the column"),
        (["path", "label"], None, {}, DataError, r"all.csv has no rows"),
    ],
)
def test_manifest_errors(flowers, header, row, options, error, text):
    arguments = write_csv(flowers / "aster" / "all.csv", header, [row] if row else [])
    with pytest.raises(error, match=text):
        load_source("manifest", {**arguments, **options})


def test_manifest_of_an_unknown_format(flowers):
    (flowers / "all.xls").touch()
    with pytest.raises(ConfigError, match=r"all.xls: expected .csv or .parquet"):
        load_source("manifest", {"path": str(flowers / "all.xls")})


def test_torchvision_reads_real_files(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    for prefix, count in (("train", 30), ("t10k", 10)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", RNG.integers(0, 255, (count, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    source = load_source("torchvision", {"name": "MNIST", "root": str(tmp_path)})
    assert source.train.uniform
    assert (len(source.train), len(source.test)) == (30, 10)
    assert source.class_names[3] == "3 - three"


def test_torchvision_says_when_data_are_missing(tmp_path):
    with pytest.raises(DataError, match=r"torchvision's MNIST in .*: Dataset not found.*set download: true"):
        load_source("torchvision", {"name": "MNIST", "root": str(tmp_path)})


def test_torchvision_fills_in_the_split(tmp_path):
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    for index in range(9):
        write_image(data / "images" / f"{index}.jpg", seed=index)
    (data / "variants.txt").write_text("A300\nBeagle\n")
    for part, start in (("train", 0), ("val", 4), ("test", 6)):
        rows = [f"{index} {('A300', 'Beagle')[index % 2]}" for index in range(start, start + 3)]
        (data / f"images_variant_{part}.txt").write_text("\n".join(rows))
    source = load_source("torchvision", {"name": "FGVCAircraft", "root": str(tmp_path)})
    assert source.class_names == ("A300", "Beagle")
    assert source.val.targets.tolist() == [0, 1, 0]
    assert source.test.ids == [f"FGVCAircraft/test/{index}" for index in range(3)]


def test_torchvision_without_labels_in_a_part(tmp_path):
    data = tmp_path / "clevr" / "CLEVR_v1.0"
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        names = [f"CLEVR_{part}_{index}.png" for index in range(count)]
        for index, name in enumerate(names):
            write_image(data / "images" / part / name, seed=index)
        scenes = [{"image_filename": name, "objects": [{}] * (3 + index)} for index, name in enumerate(names)]
        (data / "scenes").mkdir(exist_ok=True)
        if part != "test":
            (data / "scenes" / f"CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": scenes}))
    with pytest.warns(UserWarning, match="CLEVRClassification has no labels in its test part, which is left out"):
        source = load_source("torchvision", {"name": "CLEVRClassification", "root": str(tmp_path)})
    assert source.train.targets.tolist() == [3, 4, 5, 6]
    assert source.val.targets.tolist() == [3, 4]
    assert source.test is None


@pytest.mark.parametrize("name", ["Numbers", "Boxes"])
def test_torchvision_refuses_what_has_no_class_labels(name, monkeypatch):
    import torchvision.datasets

    class Numbers:
        targets = ((1, 2, 3), (0, 1, 2))

        def __len__(self):
            return 2

    class Boxes(Numbers):
        targets = ({"box": 1}, {"box": 2})

    monkeypatch.setattr(torchvision.datasets, "FakeData", {"Numbers": Numbers, "Boxes": Boxes}[name])
    with pytest.raises(DataError, match="the targets of torchvision's FakeData are no class labels"):
        load_source("torchvision", {"name": "FakeData"})


@pytest.mark.parametrize(
    ("name", "module", "arguments", "extra"),
    [("hf", "datasets", {"path": "x"}, "hf"), ("manifest", "pyarrow.parquet", {"path": "all.parquet"}, "parquet")],
)
def test_a_missing_extra_is_named(name, module, arguments, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all.parquet").touch()
    with pytest.raises(ConfigError, match=rf"pip install 'vimlight\[{extra}\]'"):
        load_source(name, arguments)


def test_hub_columns_are_checked(flowers):
    arguments = saved_hub_set(flowers)
    with pytest.raises(UnknownNameError, match="'pictur'; did you mean 'picture'"):
        load_source("hf", {**arguments, "image_column": "pictur"})
    with pytest.raises(DataError, match=r"cannot load data set '.*nowhere'"):
        load_source("hf", {"path": str(flowers / "nowhere")})


def test_hub_set_with_several_labels(flowers):
    datasets = pytest.importorskip("datasets")
    labels = datasets.Sequence(datasets.ClassLabel(names=["red", "tall", "wild"]))
    rows = {"image": [str(path) for path in files(flowers)[:3]], "traits": [[0, 2], [], [1]]}
    part = datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image(), "traits": labels}))
    datasets.DatasetDict({"train": part}).save_to_disk(flowers.parent / "traits")
    source = load_source("hf", {"path": str(flowers.parent / "traits")})
    assert source.kind == "multilabel"
    assert source.train.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_scenes_give_every_task(task):
    source = load_source("scenes", {"task": task, "train": 60, "test": 20, "size": 32})
    assert source.kind == SCENE_TASKS[task].kind
    assert source.train.images([0, 1]).shape == (2, 3, 32, 32)
    assert not torch.equal(source.train.images(range(20)), source.test.images(range(20)))


def test_an_unknown_scene_task_is_named():
    with pytest.raises(UnknownNameError, match="unknown scene task 'leters'; did you mean 'letters'"):
        load_source("scenes", {"task": "leters"})
