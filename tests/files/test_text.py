"""Tables and lists that others wrote: whatever is wrong with them is one line that names the place."""

from __future__ import annotations

import pytest

from vimlight.data.boxes.voc import read_voc
from vimlight.data.columns import read_columns
from vimlight.data.listings import check_files, label_of, read_json
from vimlight.data.sources import load_source
from vimlight.data.sources.mask_folder import class_names
from vimlight.errors import DataError, VimlightError
from vimlight.files.text import csv_rows, read_lines, read_text
from vimlight.transmiter.cache.tables import read_array, read_labels, read_names
from vimlight.transmiter.models.templates import templates_of
from vimlight.transmiter.models.vocabulary import word_list


def classes(path):
    path.rename(path.with_name("classes.txt"))
    return class_names(path.parent)


def voc(path):
    listing = path.parent / "ImageSets" / "Main" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_bytes(path.read_bytes())
    return read_voc(path.parent, "train")


def shards(path):
    path.rename(path.with_name("classnames.txt"))
    return load_source("webdataset", {"root": str(path.parent)})


TABLES = {"manifest": read_columns, "logits": read_array, "labels": read_labels}
LISTS = {
    "names": read_names, "labels": read_labels, "words": word_list, "templates": lambda path: templates_of(str(path)),
    "classes": classes, "voc": voc, "webdataset": shards,
}  # fmt: skip
READERS = [
    *(pytest.param(read, ".csv", id=f"{name}.csv") for name, read in TABLES.items()),
    *(pytest.param(read, ".txt", id=f"{name}.txt") for name, read in LISTS.items()),
]
DAMAGE = [
    (b"x,label\n1,\xe9\n", r"line 2 is no UTF-8 \(byte 0xe9\); save the file as UTF-8$"),
    ("id,label\n".encode("utf-16"), r"line 1 is no UTF-8 \(byte 0xff\); save the file as UTF-8$"),
    ("id,label\n".encode("utf-16-le"), r"line 1 holds a NUL byte: it is damaged, or no text in UTF-8$"),
    (b"x,label\n1,1\n2,\0\0\n", r"line 3 holds a NUL byte"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGE)
@pytest.mark.parametrize(("read", "suffix"), READERS)
def test_what_is_no_text(tmp_path, read, suffix, content, message):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"(a{suffix}|train.txt|class\w+.txt), {message}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty$"),
        ("\n\n", "is empty$"),
        ("\ufeff", "is empty$"),
        ("x,label\n1,a\n" + f"2,{'9' * 140_000}\n", r"row in line 3 is damaged: field larger .*\(131072\); is a quote"),
        ('x,label\n1,a\n2,"b\n3,c\n', "row in line 3 is damaged: unexpected end of data; is a quote missing"),
        ('x,label\n1,"a"b\n', "row in line 2 is damaged: .* expected after"),
        ("x,label\n1,a\n2\n", r"row \d has 1 (cells|columns), expected 2"),
        ("x,label\n1,a\n2,b,c\n", r"row \d has 3 (cells|columns), expected 2"),
        ("label,label\n1,a\n", "column 'label' occurs twice|row 0 has"),
    ],
)
@pytest.mark.parametrize("read", [pytest.param(read, id=name) for name, read in TABLES.items()])
def test_tables_that_are_damaged(tmp_path, read, content, message):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    if read is read_labels and content.startswith("label,label"):
        pytest.skip("the first column of that name is taken")
    with pytest.raises(DataError, match=rf"a.csv(:|,)? ({message})"):
        read(path)


@pytest.mark.parametrize(
    ("read", "content"), [(read_columns, "path,label\n"), (read_array, "x,y\n"), (read_array, "id,label\na,b\n")]
)
def test_tables_without_numbers_or_rows(tmp_path, read, content):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=r"a.csv has (a header but )?no (rows|column of numbers)"):
        read(tmp_path / "a.csv")


def test_rows_that_a_spreadsheet_wrote(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffa, b\r\n\r\n"1, 2",5" disk\r"x\r\ny",3\r\n'.encode())
    rows = [["a", " b"], ["1, 2", '5" disk'], ["x\r\ny", "3"]]
    assert list(csv_rows(path, DataError)) == rows


def test_lines_end_where_lines_end(tmp_path):
    """Names may hold what Unicode takes for the end of a line."""
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028two\x0cthree\r\n\r\n four \n\n\n".encode())
    assert read_lines(path, DataError) == ["one\u2028two\x0cthree", "", "four"]
    assert read_names_of(path, "a\u2028b\nc\n") == ["a\u2028b", "c"]
    path.write_text("")
    assert read_lines(path, DataError) == []
    assert read_text(path, DataError) == ""


def read_names_of(path, text):
    path.write_text(text, encoding="utf-8")
    return read_names(path)


@pytest.mark.parametrize("read", [read_text, read_lines, lambda *given: list(csv_rows(*given))])
def test_what_cannot_be_read(tmp_path, read):
    with pytest.raises(DataError, match=r"gone.txt cannot be read: No such file or directory$"):
        read(tmp_path / "gone.txt", DataError)


def test_json_that_cannot_be_read(tmp_path):
    (tmp_path / "a.json").write_text("[]", encoding="utf-16")
    assert read_json(tmp_path / "a.json") == []
    with pytest.raises(DataError, match=r"b.json does not exist; did you mean 'a.json'\?"):
        read_json(tmp_path / "b.json")


def test_labels_that_are_no_numbers():
    cells = {"3": 3, "007": 7, "10": None, "-1": None, "1.0": None, "": None, "²": None, "9" * 5000: None, "٣": 3}
    assert {cell: label_of(cell, 10) for cell in cells} == cells


def test_names_that_no_file_can_have(tmp_path):
    with pytest.raises(DataError, match=r"list: 3 of 3 images do not exist"):
        check_files(tmp_path / "list", [tmp_path / ("a" * 300), tmp_path / "a\0b", tmp_path / "\ud800"])


def test_a_column_that_is_missing(tmp_path):
    """The error is its own, not that of a damaged file."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"a": [1], "b": [2]}), tmp_path / "a.parquet")
    with pytest.raises(VimlightError, match=r"unknown column of .*a\.parquet 'label'"):
        read_labels(tmp_path / "a.parquet")


def test_a_parquet_table_without_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    empty = pyarrow.table({"a": pyarrow.array([], pyarrow.string())})
    pytest.importorskip("pyarrow.parquet").write_table(empty, tmp_path / "b.parquet")
    for read in (read_array, read_labels, read_columns):
        with pytest.raises(DataError, match=r"b.parquet has no rows$"):
            read(tmp_path / "b.parquet")
