from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.numpy import save_file
from tiny_caches import AUX, CLASSES

from vimlight.errors import ConfigError, DataError, VimlightError
from vimlight.transmiter.cache.imports import ImportFiles, import_cache
from vimlight.transmiter.cache.tables import SUFFIXES, read_array

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 5)).astype(np.float32)
FEATURES = RNG.standard_normal((6, 8)).astype(np.float32)
HEAD = RNG.standard_normal((5, 8)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])
NAMES = [*CLASSES, *AUX]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with class names in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(CLASSES) + "\n")
    (tmp_path / "aux.txt").write_text("\n".join(AUX))
    return tmp_path


def write(name, array, header=None, extra=None):
    """Writes an array in the format of its suffix; `extra` are further columns of a table."""
    extra = extra or {}
    if name.endswith(".npy"):
        np.save(name, array)
    elif name.endswith(".npz"):
        np.savez(name, it=array)
    elif name.endswith(".safetensors"):
        save_file({"it": np.ascontiguousarray(array)}, name)
    elif name.endswith((".pt", ".pth")):
        torch.save(torch.from_numpy(array), name)
    elif name.endswith(".csv"):
        with Path(name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([[*extra, *header]] if header else [])
            writer.writerows([*cells[:-1], *cells[-1].tolist()] for cells in zip(*extra.values(), array, strict=True))
    else:
        columns = {column: array[:, place] for place, column in enumerate(header or map(str, range(array.shape[1])))}
        pyarrow.parquet.write_table(pa.table({**extra, **columns}), name)
    return name


FILES = {"classes": "names.txt", "aux": "aux.txt"}


def imported(name="cache", **files):
    options = {key: files.pop(key) for key in ("scale", "bias", "partitions", "model") if key in files}
    return import_cache(name, ImportFiles(**{**FILES, **files}), split="train", **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_logits_from_any_file(folder, suffix):
    cache = imported(logits=write(f"z{suffix}", LOGITS, NAMES if suffix == ".parquet" else None))
    torch.testing.assert_close(cache.logits(), torch.from_numpy(LOGITS))
    assert (cache.class_names, cache.aux_names, cache.labels, cache.split) == (CLASSES, AUX, None, "train")
    assert list(cache.ids) == list("012345")
    assert cache.model == "imported"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_features_from_any_file(folder, suffix):
    cache = imported(
        features=write(f"f{suffix}", FEATURES), head=write(f"h{suffix}", HEAD), scale=30.0, bias=-2.0, model="api",
        labels=write(f"l{suffix}", LABELS[:, None], ["label"] if suffix == ".parquet" else None),
        partitions={"base": "0,1", "novel": "fish"},
    )  # fmt: skip
    unit = [torch.nn.functional.normalize(torch.from_numpy(array), dim=1) for array in (FEATURES, HEAD)]
    torch.testing.assert_close(cache.logits(), 30 * unit[0] @ unit[1].T - 2, rtol=0, atol=0.03)
    assert cache.labels.tolist() == LABELS.tolist()
    assert cache.partitions == {"base": [0, 1], "novel": [2]}
    assert cache.model == "api"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_says_all_there_is_to_know(folder, suffix):
    order = [3, 0, 4, 2, 1]
    extra = {"id": [f"img{row}" for row in range(6)], "label": [CLASSES[label] for label in LABELS]}
    name = write(f"z{suffix}", LOGITS[:, order], [NAMES[column] for column in order], extra)
    cache = imported(logits=name)
    torch.testing.assert_close(cache.logits(), torch.from_numpy(LOGITS))
    assert list(cache.ids) == extra["id"]
    assert cache.labels.tolist() == LABELS.tolist()
    by_header = imported("other", logits=name, classes=None)
    assert by_header.class_names == ("cat", "fish", "dog"), "in the order of the columns"
    assert by_header.aux_names == AUX


def test_classes_that_are_called_by_numbers(folder):
    (folder / "digits.txt").write_text("0\n1\n2\n")
    for header in (["2", "0", "1"], None):
        name = write("z.csv", LOGITS[:, :3], header)
        cache = imported(f"cache{header is None}", logits=name, classes="digits.txt", aux=None)
        expected = LOGITS[:, [1, 2, 0]] if header else LOGITS[:, :3]
        torch.testing.assert_close(cache.logits(), torch.from_numpy(expected))


def test_features_in_a_column_of_lists(folder):
    pyarrow.parquet.write_table(pa.table({"id": list("abcdef"), "embedding": FEATURES.tolist()}), "f.parquet")
    cache = imported(features="f.parquet", head=write("h.npy", HEAD))
    assert list(cache.ids) == list("abcdef")
    assert cache.width == 8


def test_views(folder):
    cache = imported(logits=write("z.npy", np.stack([LOGITS, LOGITS + 1], axis=1)))
    assert cache.num_views == 2
    torch.testing.assert_close(cache.logits(view=1), torch.from_numpy(LOGITS + 1))


def released(**changes):
    """What the released TransMiter keeps of a split: features in views, tuned logits, labels, names and halves."""
    return {
        "labels": torch.from_numpy(LABELS), "label_names": dict(enumerate(CLASSES)), "base": [0, 2], "novel": [1],
        "ViT-B/16_features": torch.from_numpy(np.stack([FEATURES, FEATURES + 1], axis=1)),
        "ViT-B/16_ft_logits": torch.from_numpy(LOGITS[:, :3]), **changes,
    }  # fmt: skip


ALONE = {"classes": None, "aux": None}


@pytest.mark.parametrize("nested", [False, True])
def test_the_released_tools_own_caches(folder, nested):
    content = released(labels=LABELS.tolist()) if nested else released()
    torch.save({"train": content} if nested else content, "train_features.pt")
    place = "train_features.pt:" + "train/" * nested
    tuned = imported(logits=f"{place}ViT-B/16_ft_logits", **ALONE)
    features = imported("features", features=f"{place}ViT-B/16_features", head=write("h.npy", HEAD), classes=None)
    torch.testing.assert_close(tuned.logits(), torch.from_numpy(LOGITS[:, :3]))
    assert (features.num_views, features.width, features.aux_names) == (2, 8, AUX)
    for cache in (tuned, features):
        assert cache.class_names == CLASSES
        assert cache.labels.tolist() == LABELS.tolist()
        assert cache.partitions == {"base": [0, 2], "novel": [1]}
    own = imported("own", logits=f"{place}ViT-B/16_ft_logits", partitions={"base": "0"}, **ALONE)
    assert own.partitions == {"base": [0]}


def test_classes_of_another_order_take_columns_labels_and_halves_along(folder):
    torch.save(released(), "z.pt")
    (folder / "other.txt").write_text("fish\ncat\ndog\n")
    cache = imported(logits="z.pt:ViT-B/16_ft_logits", classes="other.txt", aux=None)
    order = [CLASSES.index(name) for name in ("fish", "cat", "dog")]
    torch.testing.assert_close(cache.logits(), torch.from_numpy(LOGITS[:, order]))
    assert [cache.class_names[label] for label in cache.labels] == [CLASSES[label] for label in LABELS]
    assert {name: {cache.class_names[k] for k in some} for name, some in cache.partitions.items()} == {
        "base": {"cat", "fish"}, "novel": {"dog"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "key", "error", "message"),
    [
        (released(), "", ConfigError, "z.pt holds 2 arrays; choose with z.pt:KEY, one of: ViT-B/16_features, ViT-B/16"),
        (released(), ":b16", ConfigError, "z.pt has no array 'b16'; choose with z.pt:KEY, one of: ViT-B/16_features"),
        ({"names": ["a"]}, "", ConfigError, "z.pt holds 0 arrays; choose with z.pt:KEY, one of: none"),
        (
            released(label_names={0: "cat", 2: "fish"}), ":ViT-B/16_ft_logits", DataError,
            "z.pt: label_names has no name for class 1, of 2",
        ),
        ({"it": Path("x"), "z": torch.zeros(2, 3)}, ":z", DataError, "z.pt holds more than plain tensors and is not"),
        (b"nothing of the kind", "", DataError, "z.pt is damaged or no weight file"),
    ],
)  # fmt: skip
def test_torch_files_that_are_no_arrays_are_named(folder, content, key, error, message):
    Path("z.pt").write_bytes(content) if isinstance(content, bytes) else torch.save(content, "z.pt")
    with pytest.raises(error, match=re.escape(message)):
        imported(logits=f"z.pt{key}", **ALONE)


def test_labels_of_a_torch_file_that_name_no_class(folder):
    torch.save(released(labels=[0, 1, 2, 3, 1, 0]), "z.pt")
    (folder / "other.txt").write_text("fish\ncat\ndog\n")
    with pytest.raises(DataError, match="row 3: 3 is none of its 3 classes"):
        imported(logits="z.pt:ViT-B/16_ft_logits", classes="other.txt", aux=None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "cat\ndog\nfish\ncat\ndog\nfish\n"),
        ("l.txt", "0\n1\n2\n0\n1\n2"),
        ("l.csv", "cat\ndog\nfish\ncat\ndog\nfish\n"),
        ("l.csv", "file,label\na,cat\nb,dog\nc,fish\nd,cat\ne,dog\nf,fish\n"),
        ("l.csv", "label\n0\n1\n2\n0\n1\n2\n"),
        ("l.csv", "label\n0.0\n1.0\n2.0\n0\n1\n2.00\n"),
        ("l.txt", "0.0\n1\n2.0\n0\n1\n2"),
    ],
)
def test_labels_as_people_write_them(folder, name, content):
    (folder / name).write_text(content)
    assert imported(logits=write("z.npy", LOGITS), labels=name).labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_row_without_a_label_is_named(folder, missing):
    pyarrow.parquet.write_table(pa.table({"label": [0.0, missing, 2.0, 0.0, 1.0, 2.0]}), "l.parquet")
    with pytest.raises(DataError, match=r"l\.parquet, row 1 has no label; leave the image out"):
        imported(logits=write("z.npy", LOGITS), labels="l.parquet")


@pytest.mark.parametrize("label", ["--1", "\u00b2"])
def test_what_looks_like_a_number_is_no_label(folder, label):
    (folder / "l.txt").write_text(f"{label}\n1\n2\n0\n1\n2\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"l\.txt, row 0: '{label}' is no class name"):
        imported(logits=write("z.npy", LOGITS), labels="l.txt")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_labels_that_says_nothing_is_none(folder, suffix):
    columns = {name: LOGITS[:, place].tolist() for place, name in enumerate([*CLASSES, *AUX])}
    columns["label"] = [None] * len(LOGITS)
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table(columns), "z.parquet")
    else:
        rows = [[*map(str, row[:-1]), ""] for row in zip(*columns.values(), strict=True)]
        (folder / "z.csv").write_text("\n".join(map(",".join, [list(columns), *rows])))
    assert imported(logits=f"z{suffix}").labels is None


def test_half_precision_and_other_byte_orders(folder):
    for kind in (np.float16, ">f8", np.int32, np.uint8):
        array = np.arange(30).reshape(6, 5).astype(kind)
        cache = import_cache(
            f"cache{np.dtype(kind).name}", ImportFiles(logits=write("z.npy", array), **FILES), split="t"
        )
        assert cache.logits().tolist() == array.tolist()


def test_one_of_several_arrays(folder):
    np.savez("many.npz", train=LOGITS, test=LOGITS[:2])
    save_file({"train": LOGITS, "test": LOGITS[:2]}, "many.safetensors")
    for name in ("many.npz", "many.safetensors"):
        with pytest.raises(ConfigError, match=rf"{name} holds 2 arrays; choose with {name}:KEY, one of: test, train"):
            read_array(name)
        with pytest.raises(ConfigError, match=f"{name} has no array 'tset'"):
            read_array(f"{name}:tset")
        assert read_array(f"{name}:test").values.shape == (2, 5)


def spoilt(array, *place, value=np.nan):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda: {"logits": write("z.npy", spoilt(LOGITS, 4, 2))}, r"logits, row 4 \(id '4'\), column 2: nan is not"),
        (lambda: {"logits": write("z.csv", spoilt(LOGITS, 4, 2))}, r"logits, row 4 \(id '4'\), column 2: nan is not"),
        (lambda: {"logits": write("z.npy", spoilt(LOGITS, 3, value=1))}, r"row 3 \(id '3'\): all logits equal 1"),
        (
            lambda: {"features": write("f.npy", spoilt(FEATURES, 5, value=0)), "head": write("h.npy", HEAD)},
            r"features, row 5 \(id '5'\): all features are zero",
        ),
        (
            lambda: {"features": write("f.npy", FEATURES), "head": write("h.npy", spoilt(HEAD, 2, 1))},
            "text head, row 2: not all values are finite",
        ),
        (
            lambda: {"features": write("f.npy", FEATURES), "head": write("h.npy", HEAD[:4])},
            r"the text head is \(4, 8\), expected \(5, 8\)",
        ),
        (lambda: {"logits": write("z.npy", LOGITS[:, :4])}, "the logits have 4 columns, but there are 5 class names"),
        (
            lambda: {"logits": write("z.npy", LOGITS), "labels": write("l.npy", np.array([0, 1, 2, 3, 0, 1]))},
            r"label 3 of row 3 \(id '3'\) is not among the 3 task classes 0 to 2",
        ),
        (
            lambda: {"logits": write("z.npy", LOGITS), "labels": write("l.npy", LABELS[:4])},
            r"labels are \(4,\), expected \(6,\)",
        ),
        (
            lambda: {"logits": write("z.npy", LOGITS), "labels": write("l.npy", LABELS + 0.5)},
            "l.npy, row 0: 0.5 is no class index",
        ),
        (lambda: {"logits": write("z.npy", np.array([["a"]]))}, r"z.npy holds <U1, not numbers"),
        (
            lambda: {"logits": write("z.csv", LOGITS, ["cat", "dog", "oak", "fern", "frog"])},
            r"the columns of z.csv are not the classes: missing \['fish'\]; extra \['frog'\]",
        ),
    ],
)
def test_what_is_refused(folder, files, message):
    before = {*folder.iterdir()}
    with pytest.raises(DataError, match=message) as caught:
        imported(**files())
    assert "\n" not in str(caught.value)
    assert not (folder / "cache").exists()
    assert all(path.suffix in (".npy", ".csv") for path in {*folder.iterdir()} - before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("z.csv", "cat,dog\n1,2\n3,four\n", "z.csv, row 1, column 'dog': 'four' is no number"),
        ("z.csv", "1,2\n3,\n", "z.csv, row 1, column 1: '' is no number"),
        ("z.csv", "1,2\n3\n", "z.csv, row 1 has 1 columns, expected 2"),
        ("z.csv", "cat,dog,cat\n1,2,3\n", "column 'cat' occurs twice, in columns 0 and 2"),
        ("z.csv", "", "z.csv is empty"),
        ("z.npy", "nonsense", "z.npy is damaged or no .npy file"),
        ("z.npz", "nonsense", "z.npz is damaged or no .npz file"),
        ("z.safetensors", "nonsense", "z.safetensors is damaged or no .safetensors file"),
        ("z.parquet", "nonsense", "z.parquet is damaged or no .parquet file"),
    ],
)
def test_files_that_cannot_be_read(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_array(name)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet", ".npy"])
def test_labels_that_cannot_be_read(folder, suffix):
    (folder / f"l{suffix}").write_bytes(b"\xff\xfe\x00")
    wrong = r", line 1 is no UTF-8 \(byte 0xff\)" if suffix in (".txt", ".csv") else f" is damaged or no {suffix} file"
    with pytest.raises(DataError, match=f"l{suffix}{wrong}"):
        imported(logits=write("z.npy", LOGITS), labels=f"l{suffix}")


def test_parquet_cells_that_are_no_numbers(folder):
    pyarrow.parquet.write_table(pa.table({"cat": [1.0, 2.0], "dog": ["3", "x"]}), "z.parquet")
    with pytest.raises(DataError, match=r"z\.parquet, row 0, column 'dog': '3' is no number"):
        read_array("z.parquet")
    pyarrow.parquet.write_table(pa.table({"embedding": [[1.0, 2.0], [3.0]]}), "f.parquet")
    with pytest.raises(DataError, match=r"f\.parquet, row 1: 'embedding' has 1 numbers, expected 2"):
        read_array("f.parquet")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"logits": "z.npi"}, r"file 'z.npi' does not exist; did you mean 'z.npy'\?"),
        ({"logits": "names.txt"}, "'names.txt' is no file of numbers; expected .npy, .npz, .safetensors, .pt, .pth"),
        ({}, "give either --logits FILE, or --features FILE with --head FILE"),
        ({"features": "z.npy"}, "give either --logits FILE, or --features FILE with --head FILE"),
        ({"logits": "z.npy", "classes": None}, "the class names are missing: give --classes FILE"),
        ({"logits": "z.npy", "classes": "gap.txt"}, "gap.txt, line 2 is empty; expected one name a line"),
        (
            {"logits": "z.npy", "classes": "twice.txt"},
            "class name 'cat' occurs twice: as task class in column 0 and as",
        ),
        ({"logits": "z.npy", "labels": "l.txt"}, r"l.txt, row 1: 'dgo' is no class name; did you mean 'dog'\?"),
    ],
)
def test_mistakes(folder, files, message):
    write("z.npy", LOGITS)
    (folder / "gap.txt").write_text("cat\n\ndog\nfish\n")
    (folder / "twice.txt").write_text("cat\ndog\ncat\n")
    (folder / "l.txt").write_text("cat\ndgo\nfish\ncat\ndog\nfish\n")
    with pytest.raises(VimlightError, match=message):
        imported(**files)
    assert not (folder / "cache").exists()
