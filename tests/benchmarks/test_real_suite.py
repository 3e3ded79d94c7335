"""The real suite's tables: what is asked was never taught, on pictures that the test draws itself."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from random import Random

import pytest
import yaml
from PIL import Image

from benchmarks.real import checks, packages, pictures, prepare
from benchmarks.real.catalogue import Picture, clip_art, country_flags, emoji, emoji_flags, icons, known_words, stamps
from benchmarks.real.checks import digests, leaks
from benchmarks.real.concepts import clip_art_concept, concept, share, sides
from benchmarks.real.downstream import DOWNSTREAM
from benchmarks.real.drawing import counted, letter, masked, placed, turned
from benchmarks.real.kinds import GEORGIAN, LETTERS, STAMPS, kind_of
from benchmarks.real.midstream import MIDSTREAM
from benchmarks.real.rows import Row, dealt, limited, read_rows, write_rows
from benchmarks.real.suite import Suite
from vimlight.comparison.reading import read_plan
from vimlight.data import list_sources
from vimlight.data.sources.manifest import manifest
from vimlight.errors import DataError

FILE = Path(prepare.__file__).parent / "suite.yaml"
PLAN = yaml.safe_load(FILE.read_text())
GROUPS = {"natural": 3, "symbols": 4, "structured": 3}


def draw(file, colour=(200, 30, 30, 255), size=(40, 30)):
    """A picture of a box in the middle of nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    picture.paste(colour, (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4))
    picture.save(file)
    return file


@pytest.fixture
def unpacked(tmp_path):
    """Packages as they look unpacked, of a few files each."""
    root = tmp_path / "unpacked"
    clip = root / "usr/share/openclipart/png"
    drawings = (
        "animals/birds/blue_owl_jo_01", "signs_and_symbols/flags/africa/kenya", "unsorted/x",
        "signs_and_symbols/flags/oceania/polynesia/tonga", "special/patterns/dots",
    )  # fmt: skip
    for number, name in enumerate(drawings):
        draw(clip / f"{name}.png", (40 * number, 0, 0, 255))
    # One drawing by two titles, and a flag among other things.
    draw(clip / "food/hibou.png", (0, 0, 0, 255))
    draw(clip / "geography/map.png", (40, 0, 0, 255))
    for name in ("animals/birds/owl", "animals/birds/owl_flip", "symbols/alphabets/a"):
        draw(root / f"usr/share/tuxpaint/stamps/{name}.png")
    for size in ("16x16", "48x48"):
        draw(root / f"usr/share/icons/gnome/{size}/actions/document-open.png")
    (root / "usr/share/icons/gnome/48x48/actions/alias.png").symlink_to("document-open.png")
    listed = [
        {"image": f"{name}.png", "name": name.upper(), "short_name": name, "category": category, "subcategory": kind}
        for name, category, kind in (
            ("owl", "Animals & Nature", "animal-bird"), ("Kenya Flag", "Flags", "country-flag"),
            ("one", "Symbols", "keycap"), ("light", "Component", "skin-tone"),
        )
    ]  # fmt: skip
    for vendor in packages.VENDORS:
        folder = root / f"emoji-datasource-{vendor}"
        for entry in listed:
            entry["name"] = str(entry["name"]).title()
            entry[f"has_img_{vendor}"] = True
            draw(folder / "img" / vendor / "64" / str(entry["image"]))
        (folder / "emoji.json").write_text(json.dumps(listed))
    return root


def test_the_plan_names_what_is_made():
    plan = read_plan(FILE)
    assert [task.name for task in plan.midstream] == list(MIDSTREAM)
    assert [task.name for task in plan.downstream] == list(DOWNSTREAM)
    found = [name.partition("_")[0] for name in DOWNSTREAM]
    assert {group: found.count(group) for group in found} == GROUPS
    for task in (*PLAN["midstream"], *PLAN["downstream"]):
        assert task["dataset"] in list_sources()
        assert f"real/tasks/{task['name']}" in next(iter(task["dataset_args"].values()))
        assert set(task.get("without", ())) <= set(MIDSTREAM)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Face_With-Monocle_02", "face with monocle"), ("owl", "owl"), ("owl1", "owl"), ("n\u00famero 5", "n\u00famero")],
)
def test_a_concept_is_the_words_of_a_name(name, expected):
    assert concept(name) == expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [("blue_dragonfly_ghuul_01", "dragonfly"), ("zaino_per_montagna", "zaino"), ("a_b_01", "a"), ("8", "8")],
)
def test_the_concept_of_clip_art_is_its_thing(title, expected):
    assert clip_art_concept(title, frozenset({"dragonfly"})) == expected


def test_every_concept_has_one_side():
    side = sides(["coat"], ["owl", "coat"])
    assert side(["coat"]) == "zoo"
    assert side(["owl"]) == "tasks"
    names = [f"thing {number}" for number in range(400)]
    found = [side([name]) for name in names]
    assert found == [side([name]) for name in names]
    assert 150 < found.count("zoo") < 250
    assert side(["coat", "owl"]) is None
    assert 0 <= share("owl", "side") < 1
    assert share("owl", "side") != share("owl", "split")


def test_packages_are_read_as_they_are_laid_out(unpacked):
    (owl,) = emoji(unpacked, ("google",))
    assert (owl.kind, owl.concept, owl.group) == ("animal-bird", "owl", "google")
    (drawn,) = clip_art(unpacked, known_words([owl]))
    assert (drawn.kind, drawn.concept) == ("animals/birds", "owl")
    assert [(flag.kind, flag.concept) for flag in country_flags(unpacked)] == [
        ("africa", "flag kenya"), ("oceania", "flag tonga"),
    ]  # fmt: skip
    assert [flag.concept for flag in emoji_flags(unpacked, ("apple",), {"kenya": "africa"})] == ["flag kenya"]
    (stamp,) = stamps(unpacked)
    assert kind_of(STAMPS, stamp.kind) == "bird"
    (icon,) = icons(unpacked, ("gnome",))
    assert (icon.kind, icon.concept, icon.file.parts[-3]) == ("actions", "document open", "48x48")


def test_what_the_stamps_show_is_taken_from_the_zoo(tmp_path, unpacked):
    suite = Suite(tmp_path, unpacked)
    assert suite.emoji("zoo") == suite.clip_art("zoo") == []
    assert {picture.concept for picture in suite.emoji("tasks") + suite.clip_art("tasks") + suite.stamps} == {"owl"}
    found = {picture.concept for side in ("zoo", "tasks") for picture in suite.emoji(side) + suite.clip_art(side)}
    assert not {flag.concept for flag in suite.flags} & found


def many(kind, concepts, each=2):
    return [
        Picture(Path("none"), f"{kind} {name} {number}", kind, f"{kind} {name}", "drawn")
        for name in range(concepts) for number in range(each)
    ]  # fmt: skip


def test_dealing_keeps_things_whole_and_leaves_out_what_is_small():
    found = dealt(many("bird", 40) + many("bug", 5), lambda picture: picture.kind, 30, 20)
    parts = {split: [picture for picture, _, each in found if each == split] for split in ("train", "test")}
    assert {label for _, label, _ in found} == {"bird"}
    assert [len(parts[split]) for split in ("train", "test")] == [30, 20]
    assert not {p.concept for p in parts["train"]} & {p.concept for p in parts["test"]}
    assert found == dealt(list(reversed(many("bird", 40))), lambda picture: picture.kind, 30, 20)


def test_a_limit_takes_of_all_things_alike():
    chosen = limited(many("bird", 10, each=5), 20)
    assert len({picture.concept for picture in chosen}) == 10


def row_of(file, shown, split="train"):
    return Row(file, "x", split, shown)


@pytest.mark.parametrize(
    ("rows", "without", "expected"),
    [
        ([("a.png", "cat")], [], []),
        ([("a.png", "owl")], [], ["ask: concept 'owl' is taught by teach"]),
        ([("a.png", "cat|owl")], [], ["ask: concept 'owl' is taught by teach"]),
        ([("a.png", "owl")], ["teach"], []),
        ([("copy.png", "cat")], [], ["ask: image"]),
    ],
)
def test_a_leak_is_found(tmp_path, rows, without, expected):
    for file, colour in (("t.png", (1, 2, 3, 255)), ("copy.png", (1, 2, 3, 255)), ("a.png", (9, 9, 9, 255))):
        draw(tmp_path / file, colour)
    plan = {"midstream": [{"name": "teach"}], "downstream": [{"name": "ask", "without": without}]}
    tables = {"teach": [row_of("t.png", "dog|owl")], "ask": [row_of(*row) for row in rows]}
    found = leaks(plan, tables, tmp_path)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


@pytest.mark.skipif(not Path("real/tasks").is_dir(), reason="needs python -m benchmarks.real.prepare --root real")
def test_nothing_that_is_asked_was_taught():
    assert leaks(PLAN, checks.tables_of(Path("real"), [*MIDSTREAM, *DOWNSTREAM]), Path("real/tasks")) == []


def test_tables_come_back_and_are_manifests(tmp_path):
    draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    rows = [Row("a.png", "owl, white", "train", "owl"), Row("b.png", "cat", "test", "cat")]
    write_rows(tmp_path / "t.csv", rows)
    assert read_rows(tmp_path / "t.csv") == rows
    assert manifest(str(tmp_path / "t.csv")).class_names == ("cat", "owl, white")
    (tmp_path / "t.csv").write_text("path,label\na.png,owl\n")
    with pytest.raises(DataError, match=r"t\.csv has no column 'split'; make it anew with benchmarks\.real\.prepare"):
        read_rows(tmp_path / "t.csv")


def test_digests_tell_tables_and_pixels_apart(tmp_path):
    draw(tmp_path / "a.png")
    first = digests([row_of("a.png", "owl")], tmp_path)
    assert first["rows"] != digests([row_of("a.png", "cat")], tmp_path)["rows"]
    draw(tmp_path / "a.png", (0, 0, 0, 255))
    again = digests([row_of("a.png", "owl")], tmp_path)
    assert again["rows"] == first["rows"]
    assert again["pixels"] != first["pixels"]


def test_what_was_made_is_compared_with_what_was_laid_down(tmp_path, monkeypatch, capsys):
    draw(tmp_path / "tasks" / "a.png")
    monkeypatch.setattr(prepare, "leaks", lambda *_: [])
    tables = {"ask": [row_of("a.png", "owl")]}
    known = prepare.check(tmp_path, tables, {})
    assert prepare.check(tmp_path, tables, known) == known
    assert capsys.readouterr().out == ""
    prepare.check(tmp_path, tables, {"ask": {**known["ask"], "pixels": "other"}})
    assert "task ask: other pixels than laid down" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"task 'ask' is not the one that was laid down.*ask\.csv and call again"):
        prepare.check(tmp_path, tables, {"ask": {"rows": "other", "pixels": ""}})
    monkeypatch.setattr(prepare, "leaks", lambda *_: ["ask: concept 'owl' is taught by teach"])
    with pytest.raises(DataError, match="1 leaks from downstream tasks into the zoo; the first: ask: concept 'owl'"):
        prepare.check(tmp_path, tables, known)


def test_the_tables_that_were_laid_down_are_those_of_the_plan():
    known = json.loads((Path(checks.__file__).parent / "checksums.json").read_text())
    assert set(known) == {*MIDSTREAM, *DOWNSTREAM}


def test_pictures_are_shrunk_within_bounded_memory(tmp_path, monkeypatch):
    small, huge, empty = draw(tmp_path / "a.png"), draw(tmp_path / "b.png", size=(90, 80)), tmp_path / "c.png"
    Image.new("RGBA", (8, 8)).save(empty)
    (tmp_path / "d.png").write_bytes(b"no picture")
    monkeypatch.setattr(pictures, "LARGEST", 90 * 80 - 1)
    jobs = [(file, tmp_path / "small" / file.name) for file in (small, huge, empty, tmp_path / "d.png")]
    assert pictures.shrink_all(jobs) == [huge, empty, tmp_path / "d.png"]
    with Image.open(jobs[0][1]) as made:
        assert made.size == (pictures.SIDE, pictures.SIDE)
        assert made.getchannel("A").getbbox()[0] == 4
    before = jobs[0][1].stat().st_mtime_ns
    assert pictures.shrink_all(jobs[:1]) == []
    assert jobs[0][1].stat().st_mtime_ns == before


def test_drawn_tasks_show_what_they_ask_for(tmp_path):
    thing = tmp_path / "thing.png"
    pictures.shrink(draw(tmp_path / "raw.png", (0, 0, 0, 255), (64, 64)), thing)
    dark = placed(thing, 8, Random(0)).convert("L").point(lambda value: 255 * (value < 60)).getbbox()
    assert dark[0] > 30
    assert dark[1] > 30
    image, mask = masked(thing, [thing], Random(1))
    assert image.size == mask.size == (pictures.SIDE, pictures.SIDE)
    assert mask.getextrema() == (0, 1)
    few, several = (sum(counted([thing], count, Random(2)).convert("L").histogram()[:60]) for count in (1, 6))
    assert several > 1.5 * few
    upright, tilted = (turned(thing, angle, Random(3)) for angle in (0, 45))
    assert upright.tobytes() != tilted.tobytes()


def test_letters_are_drawn_in_a_font():
    import matplotlib

    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    first, same, other = (letter("A", font, Random(seed)) for seed in (0, 0, 1))
    assert first.tobytes() == same.tobytes() != other.tobytes()
    assert len(set(LETTERS)) == len(LETTERS)
    assert not set(LETTERS) & set(GEORGIAN)


@pytest.mark.parametrize("step", [packages._npm, packages._debian])
def test_packages_say_what_is_missing(tmp_path, monkeypatch, step):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ("tiny", "1.0.0") if step is packages._npm else ("tiny",)
    with pytest.raises(DataError, match=r"(npm|apt-get) is needed to bring 'tiny.*', but it is not installed"):
        step(*arguments, tmp_path, tmp_path)


def test_a_package_that_cannot_be_fetched_is_named(tmp_path):
    with pytest.raises(DataError, match=r"false tiny failed: no message"):
        packages._run(["false", "tiny"], tmp_path)


def packed(file, names):
    """An npm package of small files."""
    with tarfile.open(file, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Clients that bring files from a folder."""
    shelf, tools = tmp_path / "shelf", tmp_path / "bin"
    shelf.mkdir(), tools.mkdir()
    scripts = {
        "npm": f"cp {shelf}/*.tgz .",
        "apt-get": "touch tiny_1_all.deb",
        "dpkg-deb": 'mkdir -p "$3/usr/share" && touch "$3/usr/share/tiny.txt"',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.setattr(packages, "APT", ("tiny",))
    monkeypatch.setattr(packages, "NPM", {"faces": "1.0.0"})
    return shelf


def test_packages_are_brought_once(tmp_path, tools):
    packed(tools / "faces-1.0.0.tgz", ["package/emoji.json", "package/img/a/64/x.png", "package/img/a/sheets/y.png"])
    said = []
    folder = packages.bring(tmp_path / "root", said.append)
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert found == {"usr/share/tiny.txt", "faces/emoji.json", "faces/img/a/64/x.png"}
    assert said == ["package tiny", "package faces"]
    packages.bring(tmp_path / "root", said.append)
    assert len(said) == 2


def test_a_package_keeps_to_its_folder(tmp_path, tools):
    packed(tools / "faces-1.0.0.tgz", ["package/../../../64/emoji.json"])
    with pytest.raises(DataError, match=r"package faces: the path 'package/.*64/emoji\.json' leads out of its folder"):
        packages.bring(tmp_path / "root", lambda line: None)
    assert not list(tmp_path.rglob("64"))
