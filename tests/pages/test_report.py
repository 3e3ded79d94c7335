"""`vimlight report`: what runs left on disk, found, read and shown, and what is said where that cannot be."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from tiny_results import WRITERS, write_comparison, write_evaluation, write_fit, write_wandb

from vimlight import cli
from vimlight.errors import ConfigError
from vimlight.pages import build_report
from vimlight.pages.sections import SECTIONS, Section, section
from vimlight.pages.sections.gates import by_block
from vimlight.pages.sections.reliability import error
from vimlight.pages.sources import READERS, find
from vimlight.pages.sources.fit import Gates, labels
from vimlight.report.figures import Bin
from vimlight.report.parts import paragraph


@pytest.fixture
def everything(tmp_path):
    """A directory with results of every kind."""
    write_fit(tmp_path / "all" / "fit" / "version_0", seed=0)
    write_fit(tmp_path / "all" / "fit" / "version_1", seed=1, gain=0.1)
    write_comparison(tmp_path / "all" / "compared")
    write_evaluation(tmp_path / "all" / "moved", file="transfer.json")
    return tmp_path / "all"


def test_every_kind_of_results_has_a_writer_here():
    assert set(WRITERS) == set(READERS)


@pytest.mark.parametrize("name", list(READERS))
def test_results_are_found_in_a_directory_above_and_by_their_file(tmp_path, name):
    file = WRITERS[name](tmp_path / "runs" / "first")
    for path in (file, file.parent, tmp_path):
        (run,) = find([path]).runs
        assert run.path == file.parent
        assert run.name == "first"


def test_what_wandb_keeps_beside_a_run_is_not_shown_twice(tmp_path):
    write_fit(tmp_path / "runs" / "version_0")
    write_wandb(tmp_path / "runs" / "wandb" / "offline-run-1")
    assert [run.name for run in find([tmp_path / "runs"]).runs] == ["version_0"]
    assert [run.name for run in find([tmp_path / "runs" / "wandb"]).runs] == ["offline-run-1"]
    (tmp_path / "runs" / "version_0" / "metrics.csv").unlink()
    assert [run.name for run in find([tmp_path / "runs"]).runs] == ["offline-run-1"]


@pytest.mark.parametrize("name", list(SECTIONS))
def test_every_section_has_something_to_show_and_alone_it_shows_nothing(everything, tmp_path, name):
    section = SECTIONS[name]
    assert list(section.build(find([everything])))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.csv").write_text("step,val/accuracy\n")
    assert isinstance(section, Section)
    found = find([tmp_path / "empty"])
    assert bool(list(section.build(found))) == (name in ("runs", "settings"))


def test_a_page_of_everything_is_well_formed_and_names_no_number_that_is_none(everything):
    html = build_report([everything], "Everything").render()
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing
        assert "inf" not in drawing
    assert html.count("<h2") == len(SECTIONS)
    for text in ("80.0", "cat 2", "Expected calibration error", "val/accuracy over steps"):
        assert text in html, text


def test_scores_over_seeds_and_changes_of_classes(everything):
    html = build_report([everything]).render()
    # The last of each run's curve, 55.0 and 65.0, and both together.
    assert re.search(r"<td[^>]*>55\.0<", html)
    assert re.search(r"<td[^>]*>65\.0<", html)
    assert "60.0 ± 7.1" in html
    # Recall of the second class goes from 7 of 10 to 7 of 9.
    assert "from 70.0 to 77.8" in html


def test_what_no_run_says_of_itself_has_no_column(tmp_path):
    config = write_fit(tmp_path / "a").parent / "config.yaml"
    for said in (True, False):
        (table,) = SECTIONS["runs"].build(find([tmp_path]))
        headings = re.findall(r"<th[^>]*>(?:<[^>]*>)*([^<]+)", str(table))
        assert "run" in headings
        assert ("backbone" in headings) == ("seed" in headings) == said
        config.unlink(missing_ok=True)


def test_the_gains_of_a_single_run_have_its_title_in_words_below(tmp_path):
    for seed in range(2):
        write_fit(tmp_path / f"version_{seed}", seed=seed)
        (drawn,) = SECTIONS["gains"].build(find([tmp_path]))
        assert ("ens_moe cat 5-shot, seed 0. Leave-one-out error" in str(drawn)) == (seed == 0)


def test_runs_are_told_apart_by_as_little_as_does(tmp_path):
    write_fit(tmp_path / "a", seed=0)
    write_fit(tmp_path / "b", seed=1)
    write_fit(tmp_path / "c", "dog", seed=1)
    write_fit(tmp_path / "d", seed=1)
    runs = {run.name: run for run in find([tmp_path]).runs}
    assert labels([runs["a"], runs["b"]]) == ["seed 0", "seed 1"]
    assert labels([runs["a"], runs["c"]]) == ["ens_moe cat 5-shot, seed 0", "ens_moe dog 5-shot, seed 1"]
    assert labels([runs["b"], runs["d"]]) == ["b", "d"]


def test_captions_tell_a_fit_from_its_test(tmp_path):
    for stage in ("fit", "test"):
        write_fit(tmp_path / stage / "version_0")
    page = build_report([tmp_path]).render()
    said = re.findall(r"<figcaption>(ens_moe cat[^<]*): what each module weighs at each place", page)
    assert set(said) == {f"ens_moe cat 5-shot, seed 0 ({stage}/version_0)" for stage in ("fit", "test")}
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == len(set(captions))


def test_gates_are_rows_of_blocks_and_columns_of_modules_at_each_place():
    places = [f"blocks.{block}.{place}" for block in (0, 1) for place in ("attn", "mlp")]
    rows, groups = by_block(Gates(places, ["a"], [[1.0], [2.0], [3.0], [4.0]]))
    assert rows == ["blocks.0", "blocks.1"]
    assert [(group.title, group.values) for group in groups] == [("attn", [[1.0], [3.0]]), ("mlp", [[2.0], [4.0]])]


@pytest.mark.parametrize("places", [["output"], ["blocks.0.attn", "output"], ["b.0.x", "b.0.x", "b.1.y", "b.0.y"]])
def test_gates_of_other_places_keep_their_names(places):
    rows, (group,) = by_block(Gates(places, ["a"], [[1.0]] * len(places)))
    assert rows == places
    assert group.columns == ["a"]


def test_the_calibration_error_is_the_mean_distance_over_all_predictions():
    assert error([Bin(4, 0.4, 0.5), Bin(16, 0.9, 0.75), Bin(0, 0.0, 0.0)]) == pytest.approx(0.2 * 0.1 + 0.8 * 0.15)
    assert error([]) == 0


DAMAGED = {
    "a log without steps": ("metrics.csv", "a,b\n1,2\n", r"metrics\.csv has no column 'step'"),
    "a log of letters": ("metrics.csv", "step,loss\nx,1\n", r"metrics\.csv is damaged, or was not written by vimlight"),
    "gates of letters": ("gates.csv", "place,a\nblocks.0,x\n", r"gates\.csv is damaged.*could not convert"),
    "gates without end": ("gates.csv", "place,a\nb,inf\n", r"gates\.csv is damaged.*expected a finite number, not inf"),
    "gates of uneven rows": ("gates.csv", "place,a,b\nb,1\n", r"gates\.csv is damaged.*rows differ in length"),
    "other classes": ("val_confusion.csv", "true,a\nb,1\n", r"val_confusion\.csv: its rows and columns are other"),
    "counts below 0": ("val_confusion.csv", "true,a\na,-1\n", r"val_confusion\.csv: a count is below 0"),
    "no ranking": ("ranking.csv", "a,b\n1,2\n", r"ranking\.csv is damaged"),
    "a config that is none": ("config.yaml", "- 1\n", r"config\.yaml holds no settings, but list"),
    "versions that are none": ("versions.json", "[]", r"versions\.json must be a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(DAMAGED))
def test_a_damaged_file_of_a_run_is_named(tmp_path, case):
    name, text, message = DAMAGED[case]
    write_fit(tmp_path / "run")
    (tmp_path / "run" / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        find([tmp_path])


CHANGES = {
    "a method that is a number": lambda content: content.update(records=[7]),
    "a value that is none": lambda content: content["records"][0].update(value="most"),
    "a mode that does not exist": lambda content: content["records"][0].update(mode="most"),
    "gates of other names": lambda content: content["gates"][0].update(names=[]),
    "a summary of other columns": lambda content: content["summaries"][0].update(header=[]),
}


@pytest.mark.parametrize("case", list(CHANGES))
def test_a_damaged_comparison_is_named(tmp_path, case):
    file = write_comparison(tmp_path)
    content = json.loads(file.read_text())
    CHANGES[case](content)
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"results\.json is damaged, or was not written by vimlight \("):
        find([tmp_path])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_left_out_and_counted(tmp_path, value):
    file = write_comparison(tmp_path)
    content = json.loads(file.read_text())
    content["records"][0].update(value=value, flops=float("nan"))
    content["records"][1].update(flops=float("nan"))
    file.write_text(json.dumps(content))
    html = build_report([tmp_path]).render()
    assert "Results whose score is no number, which are left out: 1." in html
    assert "nan" not in html


def test_a_new_section_is_there_once_it_is_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(SECTIONS, "_entries", dict(SECTIONS._entries))

    @section("Weather", 5)
    def weather(found):
        yield paragraph(f"{len(found.runs)} runs and no rain")

    write_fit(tmp_path / "run")
    html = build_report([tmp_path]).render()
    assert html.index("1 runs and no rain") < html.index("val/accuracy over steps")
    assert ">Weather</a>" in html


def test_what_is_not_there_or_holds_nothing_is_said(tmp_path, capsys):
    write_fit(tmp_path / "version_0")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", str(tmp_path / "version_9"), "--out", str(tmp_path / "a.html")])
    assert stopped.value.code == 2
    assert re.search(r"version_9 does not exist; did you mean '.*version_0'\?", capsys.readouterr().err)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty holds no results; expected .*metrics\.csv \(a run of vimlight fit"):
        find([tmp_path / "empty"])


def test_the_command_writes_a_page_and_replaces_none_unasked(tmp_path, capsys):
    write_fit(tmp_path / "run")
    out = tmp_path / "page.html"
    cli.main(["report", str(tmp_path / "run"), "--out", str(out), "--title", "Mine"])
    assert "page.html written" in capsys.readouterr().out
    assert "<h1>Mine</h1>" in out.read_text()
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path / "rum"), "--out", str(out)])
    assert "rum does not exist; did you mean" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path / "run"), "--out", str(out)])
    assert "page.html' exists; choose another path or pass --overwrite\n" in capsys.readouterr().err
    cli.main(["report", str(tmp_path / "run"), "--out", str(out), "--overwrite"])
    assert "<h1>ens_moe cat 5-shot, seed 0</h1>" in out.read_text()


def test_a_run_that_diverged_is_shown(tmp_path):
    write_fit(tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text("step,train/loss,val/loss\n0,1,nan\n1,inf,nan\n2,3,\n")
    assert "train/loss over steps" in build_report([tmp_path]).render()
