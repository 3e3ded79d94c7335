"""VTAB-1k in the folders that are shared: lists, labels and the final fit."""

from __future__ import annotations

import pytest
from tiny_layouts import write_vtab

from vimlight.cli import main
from vimlight.data import DownstreamDataModule, load_source
from vimlight.data.members import members_of
from vimlight.data.sources.vtab1k import GROUPS
from vimlight.errors import ConfigError, DataError, UnknownNameError

TASKS = [(group, task, count) for group, tasks in GROUPS.items() for task, count in tasks.items()]


def opened(root, task="svhn"):
    return load_source("vtab1k", {"root": str(root), "task": task})


def test_there_are_nineteen_tasks_in_three_groups():
    assert [len(tasks) for tasks in GROUPS.values()] == [7, 4, 8]
    assert sum(count for _, _, count in TASKS) == 940


@pytest.mark.parametrize(("group", "task", "count"), TASKS)
def test_labels_keep_their_meaning_where_some_classes_occur_in_some_lists_only(tmp_path, group, task, count):
    last = count - 1
    write_vtab(tmp_path, task, train=(0, 0), val=(0, last), test=(last, 1 % count))
    source = opened(tmp_path, task)
    assert source.class_names == tuple(map(str, range(count)))
    assert source.train.targets.tolist() == [0, 0]
    assert source.val.targets.tolist() == [0, last]
    assert source.test.targets.tolist() == [last, 1 % count]
    assert source.final.targets.tolist() == [0, 0, 0, last]
    assert source.train.ids[0] == "images/train800/000000.jpg"
    assert source.final.ids[0] == "images/train800val200/000000.jpg"


def test_all_thousand_are_for_full_data_alone(tmp_path, preprocessing):
    write_vtab(tmp_path, "svhn")
    args = {"root": str(tmp_path), "task": "svhn"}
    data = DownstreamDataModule("vtab1k", args, preprocessing=preprocessing)
    assert {split: len(table) for split, table in data.tables.items()} == {"train": 4, "val": 2, "test": 2, "final": 6}
    assert sorted(data.split_ids()["train"]) == [f"images/train800/{n:06d}.jpg" for n in range(4)]
    few = DownstreamDataModule("vtab1k", {**args, "classes": [0, 1]}, shots=1, preprocessing=preprocessing)
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DataError, match="class '0' has 0 images"):
        _ = few.tables
    assert not few.fits_finally


def test_classes_are_chosen_in_the_final_list_too(tmp_path):
    write_vtab(tmp_path, "svhn", val=(1, 1), test=(0, 1))
    with pytest.warns(UserWarning, match="left out what is of the 9 classes"):
        source = load_source("vtab1k", {"root": str(tmp_path), "task": "svhn", "classes": [1]})
    assert source.final.targets.tolist() == [0, 0, 0, 0]


def test_a_missing_task_is_named_and_the_rest_listed(tmp_path, capsys):
    write_vtab(tmp_path, "svhn")
    (write_vtab(tmp_path, "dtd") / "test.txt").unlink()
    with pytest.raises(DataError, match=r"task 'cifar' of VTAB-1k is not in .*; found: svhn$"):
        opened(tmp_path, "cifar")
    with pytest.raises(DataError, match=r"dtd/test.txt does not exist"):
        opened(tmp_path, "dtd")
    found = members_of("vtab1k", {"root": str(tmp_path)})
    assert [(member.group, member.name) for member in found] == [(group, task) for group, task, _ in TASKS]
    assert [member.name for member in found if not member.missing] == ["svhn"]
    assert found[2].missing.endswith("dtd/test.txt")
    main(["data", "members", "vtab1k", "--args", f"root={tmp_path}"])
    said = capsys.readouterr().out
    assert "svhn\tnatural\t-\n" in said
    assert said.endswith("1 of the 19 data sets of vtab1k are there\n")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("images/train800/000000.jpg 10", r"train800.txt, line 2: .* label from 0 to 9; got 'images.*jpg 10'"),
        ("images/train800/000000.jpg -1", r"line 2: expected the path"),
        ("images/train800/000000.jpg", r"line 2: expected the path of an image, a space and a label"),
        ("", r"line 2: expected the path"),
        ("images/train800/none.jpg 3", r"train800.txt: 1 of 3 images do not exist; the first: .*train800/none.jpg"),
    ],
)
def test_mistakes_in_lists(tmp_path, line, text):
    listing = write_vtab(tmp_path, "svhn") / "train800.txt"
    first, _, third, _ = listing.read_text().splitlines()
    listing.write_text(f"{first}\n{line}\n{third}\n")
    with pytest.raises(DataError, match=text) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_paths_with_spaces_and_lines_of_windows(tmp_path):
    folder = write_vtab(tmp_path, "svhn", train=(4,))
    (folder / "images/train800/000000.jpg").rename(folder / "images/train800/a b.jpg")
    (folder / "train800.txt").write_bytes(b"images/train800/a b.jpg 4\r\n")
    assert opened(tmp_path).train.ids == ["images/train800/a b.jpg"]


def test_names_that_are_none(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown task of VTAB-1k 'cifar100'; did you mean 'cifar'"):
        opened(tmp_path, "cifar100")
    with pytest.raises(DataError, match=r"folder .*nowhere does not exist"):
        members_of("vtab1k", {"root": str(tmp_path / "nowhere")})
    with pytest.raises(UnknownNameError, match=r"unknown collection of data sets 'vtab'; did you mean 'vtab1k'"):
        members_of("vtab", {})
    with pytest.raises(UnknownNameError, match=r"argument of the collection 'vtab1k': 'rot'; did you mean 'root'"):
        members_of("vtab1k", {"rot": "."})
    with pytest.raises(ConfigError, match=r"'vtab1k' needs its folder: --args root="):
        members_of("vtab1k", {})
