"""Image-text models of real weights: the map between two frozen towers, what it may learn from, and its caches."""

from __future__ import annotations

import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from benchmarks.real import encoding, pairs
from benchmarks.real.downstream import DOWNSTREAM
from benchmarks.real.pairs import STRENGTHS, fit_projection
from benchmarks.real.rows import Row
from benchmarks.real.transfer_tasks import ASKED, PROMPTS
from vimlight.comparison.transfers.plan import transfers_of
from vimlight.errors import DataError
from vimlight.transmiter.judging.methods import METHODS


@pytest.fixture(scope="module")
def taught():
    """Features that are a noisy map of names, which lie around their kinds."""
    generator = torch.Generator().manual_seed(0)
    kinds, into = torch.randn(5, 12, generator=generator), torch.randn(12, 40, generator=generator)
    labels = torch.arange(400) % 5
    names = F.normalize(kinds[labels] + torch.randn(400, 12, generator=generator), dim=1)
    features = 3 * names @ into + 5 + torch.randn(400, 40, generator=generator)
    return features, names, F.normalize(kinds, dim=1), labels, torch.arange(400) % 4 == 0


def test_images_are_told_by_names_that_they_were_never_shown_with(taught):
    features, names, kinds, labels, out = taught
    found = fit_projection(*taught)
    cosines = found.images(features[out]) @ found.texts(kinds).T
    assert (cosines.argmax(dim=1) == labels[out]).float().mean() > 0.8
    torch.testing.assert_close(found.images(features).norm(dim=1), torch.ones(400))
    assert found.strength in STRENGTHS
    assert found.scale > 1
    torch.testing.assert_close(found.texts(names).mean(dim=0), torch.zeros(12), atol=0.1, rtol=0)


def test_strength_is_chosen_on_the_pairs_that_are_left_out_alone(taught):
    features, names, kinds, labels, out = taught
    wrong = labels.clone()
    wrong[~out] = 0
    assert fit_projection(features, names, kinds, wrong, out).strength == fit_projection(*taught).strength


def test_drawings_that_are_asked_for_by_another_title_teach_nothing(tmp_path):
    (tmp_path / "tasks").mkdir()
    for name, colour in (("owl", 10), ("hibou", 10), ("map", 90)):
        Image.new("L", (4, 4), colour).save(tmp_path / "tasks" / f"{name}.png")
    rows = [Row("hibou.png", "x", "train", "hibou"), Row("map.png", "x", "train", "map")]
    assert pairs._unasked(tmp_path, rows, [[Row("owl.png", "bird", "test", "owl")]]) == rows[1:]


def test_a_concept_on_both_sides_is_an_error(tmp_path, monkeypatch):
    Image.new("L", (4, 4), 1).save(tmp_path / "a.png")
    Image.new("L", (4, 4), 2).save(tmp_path / "b.png")
    monkeypatch.setattr(pairs, "bring", lambda root: root)
    monkeypatch.setattr(pairs, "ASKED", {"birds": lambda suite: [Row("../a.png", "bird", "test", "owl")]})
    monkeypatch.setattr(pairs, "pairs", lambda suite: [Row("../b.png", "bird", "train", "owl")])
    with pytest.raises(
        DataError, match="1 leaks from what is asked into what is taught; the first: birds: concept 'owl'"
    ):
        pairs.tables(tmp_path)


def test_models_are_built_once_and_told_by_their_zero_shot_accuracy(tmp_path, monkeypatch, capsys):
    (tmp_path / "tasks").mkdir()
    rows, content = [], {}
    for number in range(24):
        label = ("owl", "map")[number % 2]
        rows.append(Row(f"{number}.png", label, ("train", "test")[number % 4 // 2], f"thing {number} {label}"))
        content[tmp_path / "tasks" / f"{number}.png"] = label
    words = {"owl": torch.tensor([1.0, 0, 0]), "map": torch.tensor([0, 1.0, 0])}

    def images(model, side, files, views=1):
        found = torch.stack([words[content[file]] for file in files])
        return found[:, None].expand(-1, views, -1) + 0.1 * torch.randn(len(files), views, 3)

    def texts(given):
        return F.normalize(
            torch.stack([words.get(text.split()[-1], torch.tensor([0.1, 0.1, 1])) for text in given]), dim=1
        )

    monkeypatch.setattr(pairs, "encode_images", images)
    monkeypatch.setattr(pairs, "encode_texts", texts)
    monkeypatch.setattr(pairs, "ASKED", {"things": None})
    monkeypatch.setattr(pairs, "LOGITS", 5)
    read = {"pairs": rows, "things": rows}
    folder = pairs.build(tmp_path, "lite0", read)
    assert pairs.zero_shot(folder / "things") == 1
    capsys.readouterr()
    assert pairs.build(tmp_path, "lite0", read) == folder
    assert capsys.readouterr().out == ""


def test_images_lie_over_white_and_are_shown_in_views_of_their_own(tmp_path, monkeypatch):
    import timm

    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(encoding._read([tmp_path / "clear.png"], 16), torch.ones(1, 3, 16, 16))
    Image.effect_noise((48, 48), 90).save(tmp_path / "noise.png")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name: create("test_efficientnet"))
    monkeypatch.setattr(encoding, "load_weights", lambda tower, name: None)
    found = encoding.encode_images("lite0", 32, [tmp_path / "noise.png"] * 3, views=2)
    assert found.shape == (3, 2, 256)
    torch.testing.assert_close(found[0, 0], found[1, 0])
    assert not torch.allclose(found[0, 0], found[0, 1])
    assert not torch.allclose(found[0, 1], found[1, 1])


def test_eight_data_sets_are_asked_for():
    assert len(ASKED) == 8
    assert set(PROMPTS) <= set(ASKED)
    assert sum(build in DOWNSTREAM.values() for build in ASKED.values()) == 5


def test_the_plan_asks_for_all_of_them_both_ways_by_every_row(monkeypatch, tmp_path):
    file = (pairs.Path(pairs.__file__).parent / "transfer.yaml").read_text()
    content = yaml.safe_load(file)
    content["transfer"]["pools"] = str(tmp_path)
    for model in pairs.MODELS:
        for split in ("train", "test"):
            for name in ASKED:
                (tmp_path / model / name / split).mkdir(parents=True)
                (tmp_path / model / name / split / "manifest.json").touch()
    plan = transfers_of(content)
    assert plan.datasets == tuple(ASKED)
    assert set(plan.pairs) == {pair[::-1] for pair in plan.pairs}
    assert plan.seeds == (0, 1, 2, 3, 4)
    assert set(METHODS) - set(plan.methods) == {"transmiter_no_aux", "transmiter_no_basis_change"}
