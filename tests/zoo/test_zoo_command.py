"""`vimlight zoo`, run in this process as the command line runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from calling import refusal

from vimlight.commands.zoo import main
from vimlight.commands.zoo_listing import SORTS
from vimlight.errors import ZooError
from vimlight.zoo import Zoo


@pytest.fixture
def run(zoo, capsys):
    """Returns a function that runs a command on the zoo and returns what it prints."""

    def command(*arguments):
        capsys.readouterr()
        main([*map(str, arguments), "--zoo", str(zoo.path)])
        return capsys.readouterr().out

    return command


def test_list_when_piped(run):
    header, row = run("list").splitlines()
    assert header.split("\t")[:2] == ["module", "plug-in"]
    *learnt, date, size = row.split("\t")
    assert learnt == [
        "letters", "convpass", "test_vit", "classification", "drawn letters", "3", "120", "accuracy 0.9375"
    ]  # fmt: skip
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", date)
    assert re.fullmatch(r"\d+\.\d kB", size)


@pytest.fixture
def several(zoo, make_module):
    """Two more modules, each the other's opposite in all that a list shows, and a damaged file."""
    both = ("a", "ssf", {}, 9, 1, 0.1), ("z", "lora", {"rank": 32}, 8, 2, 0.9)
    for name, kind, hidden, samples, day, value in both:
        card = {
            "task": kind, "dataset": kind, "classes": ["x"] * samples, "samples": {"train": samples},
            "metrics": {"val": {"loss": 9 - value, "top5": 1.0, "miou": value}}, "training": {"monitor": "miou"},
            "date": f"2020-01-0{day}T00:00:00+00:00",
        }  # fmt: skip
        zoo.add(name, make_module(kind, **hidden), card)
    (zoo.path / "broken.safetensors").write_bytes(b"nonsense")


@pytest.mark.parametrize("key", SORTS)
def test_list_is_sorted(run, several, key):
    found = [line.split("\t")[0] for line in run("list", "--sort", key).splitlines()[1:]]
    assert found[-1] == "broken"
    expected = {
        "name": "a letters z", "kind": "letters z a", "backbone": "a letters z", "task": "letters z a",
        "dataset": "letters z a", "classes": "a z letters", "samples": "letters a z", "metric": "letters z a",
        "date": "letters z a", "size": "z letters a",
    }  # fmt: skip
    assert " ".join(found[:-1]) == expected[key]
    assert [each["name"] for each in json.loads(run("list", "--sort", key, "--json"))] == found


def test_the_metric_that_is_shown_is_the_one_that_a_module_is_chosen_by(run, several):
    assert "\tmiou 0.9\t" in run("list")


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        ({"metrics": {"val": {"loss": 0.5}, "train": {"accuracy": 0.25}}}, "accuracy 0.25"),
        ({"metrics": {"val": {"loss": 0.5}}}, ""),
        ({"metrics": {"val": {"accuracy": "high"}}, "samples": {"train": "many"}, "training": {"monitor": []}}, ""),
        ({}, ""),
    ],
)
def test_the_main_metric_of_cards_that_do_not_name_it(run, zoo, make_module, card, shown):
    zoo.add("odd", make_module(), card)
    line = next(line for line in run("list", "--sort", "metric").splitlines() if line.startswith("odd"))
    assert line.split("\t")[6:8] == ["", shown]


def test_schema(run):
    assert run("schema") == (Path(__file__).parents[2] / "docs" / "card.schema.json").read_text()


def test_list_on_a_terminal(run, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "──" in run("list")


def test_json(run, zoo):
    (entry,) = json.loads(run("list", "--json"))
    assert entry == json.loads(run("show", "letters", "--json"))
    assert entry["name"] == "letters"
    assert entry["fingerprint"] == zoo.card("letters").fingerprint
    verified = json.loads(run("verify", "--json"))
    assert (verified["modules"], verified["problems"], verified["signatures"]) == (1, [], {"letters": "not signed"})


def test_the_zoo_may_come_before_the_command(zoo, capsys):
    main(["--zoo", str(zoo.path), "list"])
    assert "letters" in capsys.readouterr().out


def test_show(run):
    lines = dict(line.split("\t") for line in run("show", "letters").splitlines())
    assert lines["settings"].startswith("hidden 4")
    assert lines["extra"] == "font serif"
    assert "author" not in lines, "what the card leaves empty is left out"


def test_a_card_cannot_steer_the_terminal(run, zoo, make_module):
    zoo.add("odd", make_module(), card={"text": "a\x1b[31mred\nline", "dataset": "[bold]x"})
    assert "text\ta [31mred line\n" in run("show", "odd")
    assert "[bold]x" in run("list")


def test_a_bad_file_does_not_hide_the_others(run, zoo):
    (zoo.path / "broken.safetensors").write_bytes(b"nonsense")
    letters, broken = run("list").splitlines()[1:]
    assert "broken.safetensors is truncated or damaged" in broken
    assert letters.startswith("letters\tconvpass")
    assert "truncated" in json.loads(run("list", "--json"))[-1]["error"]


def test_verify_names_the_bad_file_and_exits_with_1(run, zoo, capsys):
    assert run("verify") == (
        "modules checked: 1, all of them whole\n"
        "of each: header, card by its schema, SHA-256 of card, tensors and head, finite numbers, plug-in type, "
        "signature\n"
        "signed: none of them\n"
    )
    file = zoo.path / "letters.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(SystemExit) as leaving:
        run("verify")
    assert leaving.value.code == 1
    assert "letters.safetensors\tis truncated or damaged" in capsys.readouterr().out


def test_export_and_add(run, tmp_path, capsys):
    target = tmp_path / "sent" / "alphabet.safetensors"
    assert run("export", "letters", "--to", target) == f"{target}\n"
    run("add", target)
    run("add", target, "--name", "again")
    assert run("list").count("convpass") == 3
    run("export", "letters", "again", "--to", tmp_path / "all")
    assert Zoo(tmp_path / "all").names() == ["again", "letters"]
    main(["add", str(target), "--zoo", str(tmp_path / "new")])
    assert Zoo(tmp_path / "new").names() == ["alphabet"]


def test_remove_asks(run, zoo, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert "pass --yes" in refusal("remove", "letters", "--zoo", zoo.path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    with pytest.raises(SystemExit) as leaving:
        run("remove", "letters")
    assert leaving.value.code == 1
    assert "letters" in zoo
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert run("remove", "letters").endswith(f"removed 'letters' from zoo '{zoo.path}'\n")
    assert list(zoo.path.iterdir()) == []
    assert "is empty; add a module with: vimlight zoo add FILE" in run("list")
    assert run("list", "--json") == "[]\n"


def test_of_two_that_remove_a_module_one_is_told(zoo, monkeypatch):
    unlink = Path.unlink

    def too_late(self, missing_ok=False):
        unlink(self, missing_ok=True)
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", too_late)
    with pytest.raises(ZooError, match="module 'letters' was removed by another process meanwhile"):
        zoo.remove("letters")


def test_remove_without_asking_takes_even_a_broken_file(run, zoo):
    (zoo.path / "broken.safetensors").write_bytes(b"nonsense")
    run("remove", "broken", "--yes")
    assert zoo.names() == ["letters"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "unknown command of vimlight zoo 'lst'; did you mean 'list'?"),
        (["--zoo", "x", "showw", "a"], "unknown command of vimlight zoo 'showw'; did you mean 'show'?"),
        ([], "the following arguments are required: COMMAND; see vimlight zoo --help"),
        (["show"], "the following arguments are required: NAME; see vimlight zoo show --help"),
        (["list", "--jso"], "unknown option '--jso' of vimlight zoo list; did you mean '--json'?"),
        (["gallery", "ZOO", "--outt", "x"], "unknown option '--outt' of vimlight zoo gallery; did you mean '--out'?"),
        (["list", "--colour=red"], "unknown option '--colour' of vimlight zoo list; see vimlight zoo list --help"),
        (["list", "more"], "unrecognized arguments: more; see vimlight zoo --help"),
        (
            ["export", "a"],
            "the following arguments are required: --to; see vimlight zoo export --help",
        ),
    ],
)
def test_mistyped_command_lines(arguments, message):
    assert refusal(*arguments) == message


def test_mistyped_names(zoo):
    assert refusal("show", "leters", "--zoo", zoo.path).endswith("did you mean 'letters'?")
    said = refusal("list", "--sort", "dat", "--zoo", zoo.path)
    assert said == "unknown key to sort by 'dat'; did you mean 'date' or 'dataset'?"
    assert refusal("remove", "leters", "--yes", "--zoo", zoo.path).endswith("did you mean 'letters'?")
    assert refusal("list", "--zoo", f"{zoo.path}s").endswith(f"does not exist; did you mean '{zoo.path}'?")
    assert "leters.safetensors' does not exist" in refusal("add", zoo.path / "leters.safetensors", "--zoo", zoo.path)


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["list", "--help"], {"torch", "timm", "rich"}),
        pytest.param(["list"], {"timm", "torchvision"}, marks=pytest.mark.slow),
    ],
)
def test_looking_needs_no_heavy_import(zoo, arguments, absent):
    code = (
        "import sys; from vimlight.commands.zoo import main\n"
        f"try: main({[*arguments, '--zoo', str(zoo.path)]})\nexcept SystemExit: pass\n"
        f"sys.exit(' '.join({absent} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert not done.stderr.strip()
    assert "--zoo DIR" in done.stdout or "letters" in done.stdout
