"""Labels from tables and data sets as people write them, and the classes that they make."""

from __future__ import annotations

from typing import ClassVar

import pytest
from tiny_data import write_image

from vimlight.data import DownstreamDataModule, MidstreamDataModule, load_source
from vimlight.data.classes import choose, natural_order
from vimlight.data.labels import MISSING
from vimlight.errors import ConfigError, DataError, UnknownNameError

COUNT = 4


@pytest.fixture
def images(tmp_path):
    for index in range(COUNT):
        write_image(tmp_path / f"{index}.png", seed=index)
    return tmp_path


def csv_table(folder, *labels, header="path,label", rows=None):
    rows = [f"{index}.png,{label}" for index, label in enumerate(labels)] if rows is None else rows
    (folder / "all.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return {"path": str(folder / "all.csv")}


def parquet_table(folder, labels, **columns):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"path": [f"{index}.png" for index in range(len(labels))], "label": labels, **columns}
    parquet.write_table(pyarrow.table(columns), folder / "all.parquet")
    return {"path": str(folder / "all.parquet")}


def hub_set(folder, feature, **splits):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": feature(datasets)})
    parts = {}
    for split, labels in splits.items():
        rows = {"image": [str(folder / f"{index}.png") for index in range(len(labels))], "label": labels}
        parts[split] = datasets.Dataset.from_dict(rows, features)
    datasets.DatasetDict(parts).save_to_disk(folder / "hub")
    return {"path": str(folder / "hub"), "label_column": "label"}


def read(name, arguments, **more):
    source = load_source(name, {**arguments, **more})
    return list(source.class_names), source.train.targets.tolist()


MULTILABEL, CLASSIFICATION = {"kind": "multilabel"}, {"kind": "classification"}
CELLS = {
    "white space": ([" cat", "dog ", "cat"], {}, ["cat", "dog"], [0, 1, 0]),
    "white space around the separator": (["cat | dog", "dog"], {}, ["cat", "dog"], [[1, 1], [0, 1]]),
    "no label among several": (["cat|dog", "", "nan"], {}, ["cat", "dog"], [[1, 1], [0, 0], [0, 0]]),
    "empty parts": (["cat||dog|", "|cat"], {}, ["cat", "dog"], [[1, 1], [1, 0]]),
    "several by kind": (["cat", "", "dog"], MULTILABEL, ["cat", "dog"], [[1, 0], [0, 0], [0, 1]]),
    "one by kind": (["AC|DC", "Abba"], CLASSIFICATION, ["AC|DC", "Abba"], [0, 1]),
    "floats beside whole numbers": (["1", "2.0", "10", "1.0"], {}, ["1", "2", "10"], [0, 1, 2, 0]),
    "numbers with fractions": (["1.0", "1.5", "10.0"], {}, ["1.0", "1.5", "10.0"], [0, 1, 2]),
    "numbers by value": (["10", "9", "2"], {}, ["2", "9", "10"], [2, 1, 0]),
    "names with numbers": (["class10", "class2"], {}, ["class10", "class2"], [0, 1]),
    "a class called NA": (["NA", "EU"], {"classes": ["NA", "EU"]}, ["NA", "EU"], [0, 1]),
    "a class without images": (["cat", "dog"], {"classes": ["dog", "emu", "cat"]}, ["dog", "emu", "cat"], [2, 0]),
    "classes as numbers": (["2", "1"], {"classes": [2, 1]}, ["2", "1"], [0, 1]),
    "decomposed letters": (["cafe\u0301", "caf\u00e9"], {}, ["caf\u00e9"], [0, 0]),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_of_a_manifest(images, case):
    labels, options, names, targets = CELLS[case]
    assert read("manifest", csv_table(images, *labels), **options) == (names, targets)


def test_the_kind_of_a_manifest_may_be_any_that_goes_with_its_labels(images):
    assert load_source("manifest", {**csv_table(images, "1", "2", "10"), "kind": "ordinal"}).kind == "ordinal"


@pytest.mark.parametrize("missing", sorted(MISSING))
def test_a_row_without_a_label_is_refused(images, missing):
    with pytest.raises(DataError, match=r"all.csv, row 2 has no label; fill it in, .* kind: multilabel; .* classes"):
        load_source("manifest", csv_table(images, "cat", missing, "dog"))


PARQUET = {
    "NULL": (["cat", None], MULTILABEL, ["cat"], [[1], [0]]),
    "lists": ([["dog", "cat"], [], None, ["dog"]], {}, ["cat", "dog"], [[1, 1], [0, 0], [0, 0], [0, 1]]),
    "lists of numbers": ([[10, 9], [9]], {}, ["9", "10"], [[1, 1], [1, 0]]),
    "floats": ([1.0, 10.0, 2.0], {}, ["1", "2", "10"], [0, 2, 1]),
    "truth": ([True, False], {}, ["False", "True"], [1, 0]),
    "bytes": ([b"cat", b"dog"], {}, ["cat", "dog"], [0, 1]),
}


@pytest.mark.parametrize("case", PARQUET)
def test_cells_of_a_parquet_manifest(images, case):
    labels, options, names, targets = PARQUET[case]
    assert read("manifest", parquet_table(images, labels), **options) == (names, targets)


@pytest.mark.parametrize(
    ("labels", "options", "text"),
    [
        (["cat", None], {}, r"row 2 has no label"),
        ([1.0, float("nan")], {}, r"row 2 has no label"),
        ([1.0, 0.5], {}, r"row 2: 0.5 is no label; expected a text or a whole number"),
        ([["cat"], ["cat", "dog"]], CLASSIFICATION, r"row 2 has 2 labels, expected one; or set kind: multilabel"),
        ([{"a": 1}], {}, r"row 1: \{'a': 1\} is no label"),
    ],
)
def test_parquet_cells_that_are_refused(images, labels, options, text):
    with pytest.raises(DataError, match=text):
        load_source("manifest", {**parquet_table(images, labels), **options})


ROWS = {
    "short row": (["0.png,cat", "1.png"], {}, DataError, r"row 2 has 1 cells, expected 2: path, label"),
    "long row": (["0.png,cat,black"], {}, DataError, r"row 1 has 3 cells, expected 2: path, label"),
    "none beside others": (["0.png,cat|NA"], {}, DataError, r"row 1: 'NA' stands beside other labels"),
    "two labels": (["0.png,cat", "./0.png,dog"], {}, DataError, r"rows 1 and 2 are of one image, .* different things"),
    "unknown class": (["0.png,cat", "1.png,dog"], {"classes": ["cat", "dgo"]}, UnknownNameError, r"'dgo'.*mean 'dog'"),
    "class named twice": (["0.png,cat"], {"classes": ["cat", "cat"]}, ConfigError, r"each once; got \['cat', 'cat'\]"),
    "unknown kind": (["0.png,cat"], {"kind": "multilable"}, UnknownNameError, r"'multilable'; .* 'multilabel'"),
    "kind of masks": (["0.png,cat"], {"kind": "segmentation"}, UnknownNameError, r"kind of a manifest 'segmentation'"),
    "kind of numbers": (["0.png,3"], {"kind": "regression"}, ConfigError, r"'regression' needs number_columns"),
    "numbers of classes": (
        ["0.png,3"], {"kind": "ordinal", "number_columns": ["label"]}, ConfigError, r"'ordinal' has classes, num",
    ),
    "NaN": (["0.png,nan"], {"number_columns": ["label"]}, DataError, "row 1: column 'label' needs a number, got 'nan'"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_are_refused(images, case):
    rows, options, error, text = ROWS[case]
    with pytest.raises(error, match=text):
        load_source("manifest", {**csv_table(images, rows=rows), **options})


@pytest.mark.parametrize("path", ["0.png", "./0.png", "../{folder}/0.png", "{root}/0.png"])
@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_an_image_in_two_splits_is_refused(images, path, kind):
    path = path.format(folder=images.name, root=images)
    rows = ["0.png,cat,train", "1.png,dog,train", f"{path},cat,test"]
    table = csv_table(images, header="path,label,split", rows=rows)
    with pytest.raises(DataError, match=r"rows 1 and 3 are of one image, .*0.png, but one says 'train' and .* 'test'"):
        load_source("manifest", {**table, "kind": kind})


def test_a_repeated_row_is_left_out(images):
    table = csv_table(images, rows=["0.png,cat", "1.png,dog", "./0.png,cat"])
    with pytest.warns(UserWarning, match=r"left out 1 repeated rows; the first: .*rows 1 and 3 are of one image"):
        source = load_source("manifest", table)
    assert source.train.ids == ["0.png", "1.png"]


def test_labels_that_are_not_chosen_are_left_out_with_a_warning(images):
    table = csv_table(images, "cat", "dgo", "dog", "cat")
    with pytest.warns(UserWarning, match=r"all.*left out what is of the 1 classes not chosen: 'dgo'"):
        names, targets = read("manifest", table, classes=["dog", "cat"])
    assert (names, targets) == (["dog", "cat"], [1, 0, 1])


@pytest.mark.parametrize("labels", [("Cat", "cat"), ("golden retriever", "golden_retriever"), ("1", "01", "2")])
def test_names_that_differ_in_spelling_alone_are_pointed_out(images, labels, recwarn):
    with pytest.warns(UserWarning, match=r"are two classes that differ in spelling alone; .* name both in classes"):
        names, _ = read("manifest", csv_table(images, *labels))
    assert len(names) == len(labels)
    recwarn.clear()
    read("manifest", csv_table(images, *labels), classes=list(labels))
    assert not recwarn.list


def test_folders_that_differ_in_spelling_alone_are_pointed_out(tmp_path, recwarn):
    for name in ("Cat", "cat"):
        write_image(tmp_path / "set" / name / "0.png")
    with pytest.warns(UserWarning, match=r"set: 'Cat' and 'cat' are two classes that differ in spelling alone"):
        load_source("image_folder", {"root": str(tmp_path / "set")})
    recwarn.clear()
    load_source("image_folder", {"root": str(tmp_path / "set"), "classes": ["cat", "Cat"]})
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"path,label\n0.png,caf\xe9\n", r"all.csv, line 2 is no UTF-8 \(byte 0xe9\); save"),
        (b"path,label,label\n0.png,a,b\n", r"all.csv: column 'label' occurs twice"),
        (b"PAR1", r"all.parquet is damaged or no .parquet file"),
    ],
)
def test_tables_that_cannot_be_read(images, content, text):
    file = images / ("all.parquet" if content.startswith(b"PAR1") else "all.csv")
    file.write_bytes(content)
    with pytest.raises(DataError, match=text):
        load_source("manifest", {"path": str(file)})


def test_a_table_that_a_spreadsheet_wrote(images):
    (images / "all.csv").write_bytes("\ufeffpath, label\r\n0.png,cat\r\n\r\n1.png,dog\r\n".encode())
    assert read("manifest", {"path": str(images / "all.csv")}) == (["cat", "dog"], [0, 1])


def class_label(*names):
    return lambda datasets: datasets.ClassLabel(names=list(names))


def value(kind):
    return lambda datasets: datasets.Value(kind)


def list_of(feature):
    return lambda datasets: datasets.Sequence(feature(datasets))


AB = class_label("a", "b")
HUB = {
    "whole numbers": (value("int64"), [10, 9, 2, 9], {}, ["2", "9", "10"], [2, 1, 0, 1]),
    "texts": (value("string"), ["dog", " cat", "dog"], {}, ["cat", "dog"], [1, 0, 1]),
    "truth": (value("bool"), [True, False], {}, ["False", "True"], [1, 0]),
    "floats": (value("float64"), [1.0, 0.0], {}, ["0", "1"], [1, 0]),
    "class numbers": (class_label("NA", "1.0", "b"), [2, 1, 0], {}, ["NA", "1.0", "b"], [2, 1, 0]),
    "-1 and None": (AB, [0, -1, None, 1], {}, ["a", "b"], [0, 1]),
    "-1 among numbers": (value("int8"), [0, -1, 1], {}, ["0", "1"], [0, 1]),
    "a class called -1": (value("int64"), [0, -1, 1], {"classes": [-1, 0, 1]}, ["-1", "0", "1"], [1, 0, 2]),
    "-1 in lists": (list_of(AB), [[0, -1], [-1], [1], []], {}, ["a", "b"], [[1, 0], [0, 0], [0, 1], [0, 0]]),
    "None for a list": (list_of(AB), [[0], None, [1]], {}, ["a", "b"], [[1, 0], [0, 1]]),
    "lists of texts": (list_of(value("string")), [["x", "y"], []], {}, ["x", "y"], [[1, 1], [0, 0]]),
    "lists of numbers": (list_of(value("int64")), [[10], [9, 10]], {}, ["9", "10"], [[0, 1], [1, 1]]),
}


@pytest.mark.filterwarnings("ignore:.*left out . of . images without a label")
@pytest.mark.parametrize("case", HUB)
def test_label_columns_of_the_hub(images, case):
    feature, labels, options, names, targets = HUB[case]
    arguments = hub_set(images, feature, train=labels)
    assert read("hf", arguments, **options) == (names, targets)


def test_images_of_the_hub_without_a_label_are_counted_and_keep_their_numbers(images):
    arguments = hub_set(images, AB, train=[0, -1, None, 1])
    with pytest.warns(UserWarning, match=r"data set '.*hub', train: left out 2 of 4 images without a label"):
        source = load_source("hf", arguments)
    assert [name.rsplit("/", 1)[1] for name in source.train.ids] == ["0", "3"]


@pytest.mark.parametrize(
    ("feature", "labels", "error", "text"),
    [
        (AB, [-1, None], DataError, r"train: no image has a label"),
        (value("float64"), [0.5, 1.0], DataError, r"train, row 1: 0.5 is no label"),
        (list_of(list_of(AB)), [[[0]]], DataError, r"column 'label' is of type .*ClassLabel.*; expected labels"),
    ],
)
def test_label_columns_that_are_refused(images, feature, labels, error, text):
    with pytest.raises(error, match=text):
        load_source("hf", hub_set(images, feature, train=labels))


@pytest.mark.parametrize("labels", [[0, -2], [0, 2], [[0], [1, 2]]])
def test_numbers_of_the_hub_that_are_no_class_are_refused(monkeypatch, labels):
    datasets = pytest.importorskip("datasets")

    class Part(dict):  # the library writes no such numbers, others do
        features: ClassVar = {
            "image": datasets.Image(),
            "label": (list_of(AB) if isinstance(labels[0], list) else AB)(datasets),
        }

    monkeypatch.setattr("vimlight.data.sources.hf._load", lambda path, name: {"train": Part(label=labels)})
    with pytest.raises(DataError, match=r"train, row 2: label -?2 is not among the 2 classes"):
        load_source("hf", {"path": "hub"})


@pytest.mark.parametrize(
    ("feature", "train", "unknown"),
    [(AB, [0, 1], [-1, -1]), (value("string"), ["a", "b"], [None, ""]), (list_of(AB), [[0], [1]], [[]])],
)
@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_part_of_the_hub_without_labels_is_replaced(images, feature, train, unknown, split):
    arguments = hub_set(images, feature, train=train, **{split: unknown})
    with pytest.warns(UserWarning, match=rf"{split}: no image has a label; images of the training part serve instead"):
        source = load_source("hf", arguments)
    assert (source.val, source.test) == (None, None)
    assert len(source.train) == len(train)


def test_parts_of_the_hub_may_number_their_classes_differently(images):
    datasets = pytest.importorskip("datasets")
    arguments = hub_set(images, AB, train=[0, 1])
    both = datasets.load_from_disk(arguments["path"])
    rows = {"image": [str(images / "0.png")], "label": [0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])})
    datasets.DatasetDict({"train": both["train"], "test": datasets.Dataset.from_dict(rows, features)}).save_to_disk(
        images / "other"
    )
    assert load_source("hf", {"path": str(images / "other")}).test.targets.tolist() == [1]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([str(number) for number in range(12)], [str(number) for number in range(12)]),
        (["10", "-1", "2.5", "2"], ["-1", "2", "2.5", "10"]),
        (["b", "10", "9"], ["10", "9", "b"]),
        (["\u00b2", "1"], ["1", "\u00b2"]),
    ],
)
def test_natural_order(names, expected):
    assert list(natural_order(names)) == expected


def test_folders_that_are_numbers_are_in_the_order_of_the_numbers(tmp_path):
    for number in range(12):
        write_image(tmp_path / "set" / str(number) / "0.png")
    source = load_source("image_folder", {"root": str(tmp_path / "set")})
    assert source.class_names == tuple(map(str, range(12)))
    assert dict(zip(source.train.ids, source.train.targets.tolist(), strict=True))["10/0.png"] == 10


def test_a_folder_that_is_not_chosen_may_be_empty(flowers):
    (flowers / "lily").mkdir()
    with pytest.warns(UserWarning, match=r"left out what is of the 2 classes not chosen: 'lily', 'rose'"):
        source = load_source("image_folder", {"root": str(flowers), "classes": ["tulip", "aster"]})
    assert source.train.targets.bincount().tolist() == [8, 6]


def test_a_name_that_two_classes_share_cannot_be_chosen():
    with pytest.raises(ConfigError, match="2 classes of birds are called 'crane'"):
        choose(["crane", "duck", "crane"], ["crane"], "birds")


def test_masks_name_their_classes_by_number_where_no_file_does(flowers):
    from tiny_sources import mask_folder

    arguments = mask_folder(flowers)
    file = flowers.parent / "masks" / "classes.txt"
    with pytest.warns(UserWarning, match="not chosen: 'ground'"):
        line = load_source("mask_folder", {**arguments, "classes": ["line"]})
    assert line.train.targets[0].unique().tolist() == [0, 255]
    file.write_text("ground\n\nline\n")
    with pytest.raises(DataError, match=r"classes.txt, line 2 is empty; expected the name of class 1"):
        load_source("mask_folder", arguments)
    file.unlink()
    assert load_source("mask_folder", {**arguments, "classes": ["b", "a"]}).class_names == ("b", "a")


def test_boxes_of_chosen_classes_keep_their_category_numbers(tmp_path):
    from tiny_boxes import write_coco

    write_coco(tmp_path, "train", 3)
    arguments = {"root": str(tmp_path), "train": "annotations/train.json", "train_images": "train", "test": None}
    with pytest.warns(UserWarning, match="not chosen: 'cat'"):
        targets = load_source("coco_detection", {**arguments, "classes": ["tooth brush", "dog"]}).train.targets
    assert targets.category_ids == (90, 7)
    assert [targets[row]["labels"].tolist() for row in range(3)] == [[1, 0], [], []]


@pytest.mark.parametrize("stage", [MidstreamDataModule, DownstreamDataModule])
def test_a_property_that_fails_is_never_taken_for_absent(stage, monkeypatch):
    def broken(name, arguments):
        return object().names

    monkeypatch.setattr("vimlight.data.image_data.load_source", broken)
    data = stage("digits")
    for name in ("source", "kind", "class_names", "num_classes", "layout", "tables", "predict_table"):
        with pytest.raises(DataError, match=rf"{stage.__name__}.source failed: .* no attribute 'names'; --debug shows"):
            hasattr(data, name)
    assert not hasattr(data, "aux_names")


def test_a_property_of_cached_logits_that_fails_is_never_taken_for_absent(monkeypatch):
    module = pytest.importorskip("vimlight.transmiter.cache.data_module")
    monkeypatch.setattr(module.LogitCache, "open", lambda path: object().names)
    data = module.CacheDataModule("nowhere")
    for name in ("caches", "class_names", "aux_names", "class_indices", "model_name"):
        with pytest.raises(DataError, match=r"CacheDataModule.caches failed: .* no attribute 'names'"):
            getattr(data, name, None)


def test_torchvision_numbers_the_classes_of_all_parts(monkeypatch):
    import torchvision.datasets

    class Numbered(list):
        def __init__(self, train):
            super().__init__([(None, label) for label in ((0, 1) if train else (0, 2))])

    monkeypatch.setattr(torchvision.datasets, "FakeData", Numbered)
    assert load_source("torchvision", {"name": "FakeData"}).class_names == ("0", "1", "2")


@pytest.mark.parametrize("names", [["a", "", "b", ""], ["a", "b"]])
def test_torchvision_names_keep_their_numbers(monkeypatch, names):
    import torchvision.datasets

    class Named(list):
        classes = names

        def __init__(self):
            super().__init__([(None, 0), (None, 1)])

    monkeypatch.setattr(torchvision.datasets, "FakeData", Named)
    assert load_source("torchvision", {"name": "FakeData"}).class_names[:2] == tuple(names[:2])


def test_torchvision_refuses_fractions(monkeypatch):
    import torchvision.datasets

    class Fractions(list):
        def __init__(self):
            super().__init__([(None, 0.5), (None, 1.0)])

    monkeypatch.setattr(torchvision.datasets, "FakeData", Fractions)
    with pytest.raises(DataError, match="FakeData are no class labels, but numbers with fractions"):
        load_source("torchvision", {"name": "FakeData"})


def test_an_image_file_in_two_parts_of_any_source_is_refused(tmp_path):
    from tiny_boxes import voc_object, write_voc

    root = write_voc(tmp_path / "VOC", {"train": [[voc_object("dog", (1, 1, 9, 9))]], "val": [[]]})
    with pytest.raises(DataError, match=r"'VOC': .*val_0.jpg is in its val part and in its test part; leave one out"):
        load_source("voc_detection", {"root": str(root), "val": "val"})


def test_a_part_without_any_image_of_the_chosen_classes_is_named(images):
    table = csv_table(images, header="path,label,split", rows=["0.png,cat,train", "1.png,dog,train", "2.png,dog,test"])
    with (
        pytest.warns(UserWarning, match="not chosen: 'dog'"),
        pytest.raises(DataError, match="data set 'all' has no image of cat in its test part"),
    ):
        load_source("manifest", {**table, "classes": ["cat"]})
