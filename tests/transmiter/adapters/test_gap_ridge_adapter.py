"""Gap ridge against fits that are made anew without an image, and what it promises."""

from __future__ import annotations

import pytest
import torch
from tiny_pair import AUX, CLASSES, WIDTH, images, logits, tuned, write_pair

from vimlight.errors import CacheError, ConfigError, DataError, UnknownNameError
from vimlight.transmiter import GapRidge, LogitCache, TextHead, fit_gap_ridge, write_cache
from vimlight.transmiter.adapters.gap_ridge import NormalEquations
from vimlight.transmiter.cache.rows import z_score

VIEWS = pytest.mark.parametrize("views", [1, 3])


def problem(count=20, views=1, inputs=30, outputs=4, seed=0):
    """Inputs and gaps of some images, linearly related but for noise, neither of them centred."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, 1, inputs, generator=generator)
    x = 3 + centres + 0.3 * torch.randn(count, views, inputs, generator=generator)
    y = x @ torch.randn(inputs, outputs, generator=generator) / 5 + torch.randn(
        count, views, outputs, generator=generator
    )
    return x.double(), y.double()


def solve(x, y, penalty):
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram = (x - mean_x).T @ (x - mean_x) + penalty * torch.eye(x.shape[1])
    weight = torch.linalg.solve(gram, (x - mean_x).T @ (y - mean_y)).T
    return weight, mean_y - weight @ mean_x


@VIEWS
def test_the_errors_are_those_of_fits_without_the_image(views):
    x, y = problem(views=views)
    normal = NormalEquations.of([(x, y)])
    flat = x.flatten(0, 1)
    unit = (flat - flat.mean(0)).square().sum(0).mean()
    for strength in (1e-2, 1.0, 30.0):
        squares = []
        for image in range(len(x)):
            keep = torch.arange(len(x)) != image
            weight, bias = solve(x[keep].flatten(0, 1), y[keep].flatten(0, 1), strength * unit)
            squares.append((y[image] - x[image] @ weight.T - bias).square())
        expected = torch.stack(squares).mean()
        ours = normal.left_out_errors([(x, y)], [strength])[0]
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


@VIEWS
def test_the_solution_is_the_ridge_it_says(views):
    x, y = problem(views=views)
    flat = x.flatten(0, 1)
    unit = (flat - flat.mean(0)).square().sum(0).mean()
    weight, bias = NormalEquations.of([(x, y)]).solution(0.3)
    expected = solve(flat, y.flatten(0, 1), 0.3 * unit)
    torch.testing.assert_close(weight, expected[0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(bias, expected[1], rtol=1e-6, atol=1e-8)


def test_batches_do_not_matter():
    x, y = problem(views=2)
    whole, parts = [(x, y)], list(zip(x.split(3), y.split(3), strict=True))
    one, two = NormalEquations.of(whole), NormalEquations.of(parts)
    torch.testing.assert_close(one.solution(1.0), two.solution(1.0), rtol=1e-8, atol=1e-10)
    strengths = [1e-2, 1.0]
    torch.testing.assert_close(
        one.left_out_errors(whole, strengths), two.left_out_errors(parts, strengths), rtol=1e-8, atol=1e-10
    )


def test_what_is_far_from_zero_is_solved_as_well():
    x, y = problem(inputs=5)
    near, far = NormalEquations.of([(x, y)]), NormalEquations.of([(x + 1e7, y - 1e9)])
    torch.testing.assert_close(far.solution(0.3)[0], near.solution(0.3)[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(far.values, near.values, rtol=1e-5, atol=1e-7)
    assert far.variance == pytest.approx(near.variance, rel=1e-5)
    torch.testing.assert_close(far.mean_y, near.mean_y - 1e9)


def as_features(root, count=80):
    """The strong model's cache with features and a text head instead of logits."""
    latent, labels = images(count, 2)
    head = TextHead(torch.randn(WIDTH, 8, generator=torch.Generator().manual_seed(2)), scale=20.0)
    options = {"class_names": CLASSES, "aux_names": AUX, "labels": labels, "split": "train", "model": "strong"}
    return write_cache(root / "features", features=latent, head=head, **options)


@pytest.mark.parametrize("reads", ["logits", "features"])
def test_it_brings_the_target_what_the_source_learnt(tmp_path, reads):
    weak, weak_tuned, _ = write_pair(tmp_path)
    strong = as_features(tmp_path)
    adapter = fit_gap_ridge(weak, weak_tuned, strong, reads=reads)
    before = strong.logits()
    after = adapter(before, strong.features())
    right = [(values[:, :4].argmax(1) == strong.labels).float().mean() for values in (before, after)]
    assert right[1] > right[0]
    torch.testing.assert_close(after[:, :4], adapter.task_logits(before, strong.features()))
    assert torch.equal(after[:, 4:], before[:, 4:])
    step = adapter.card.history[-1]
    assert (step["step"], step["reads"], step["rows"]) == ("gap_ridge", reads, 160)
    assert 0.5 < step["explained_left_out"] < 1
    assert {role: cache["hash"] for role, cache in step["caches"].items()} == {
        "source": weak.hash, "source_tuned": weak_tuned.hash, "target": strong.hash,
    }  # fmt: skip
    assert (adapter.card.class_names, adapter.card.aux_names, adapter.card.model) == (CLASSES, AUX, "strong")


def test_the_chosen_strength_has_the_least_error(tmp_path):
    caches = write_pair(tmp_path)
    alone = {
        strength: fit_gap_ridge(*caches, strengths=[strength]).card.history[-1]["explained_left_out"]
        for strength in (1e-4, 1e-1, 1.0, 1e3)
    }
    chosen = fit_gap_ridge(*caches, strengths=list(alone)).card.history[-1]
    assert chosen["strength"] == max(alone, key=alone.get)
    assert chosen["explained_left_out"] == pytest.approx(max(alone.values()))


def test_batch_size_does_not_matter(tmp_path):
    caches = write_pair(tmp_path)
    whole = fit_gap_ridge(*caches)
    for size in (1, 33):
        torch.testing.assert_close(fit_gap_ridge(*caches, batch_size=size).weight, whole.weight, rtol=1e-5, atol=1e-6)


def test_the_change_does_not_depend_on_scale_and_offset_of_the_target(tmp_path):
    weak, weak_tuned, strong = write_pair(tmp_path)
    latent, labels = images()
    options = {"class_names": CLASSES, "aux_names": AUX, "labels": labels, "split": "train", "model": "loud"}
    loud = write_cache(tmp_path / "loud", logits=5 * logits(latent, 2) - 30, **options)
    changes = [fit_gap_ridge(weak, weak_tuned, cache)(cache.logits()) - cache.logits() for cache in (strong, loud)]
    torch.testing.assert_close(*changes, rtol=1e-3, atol=1e-3)


def test_what_all_classes_gain_alike_is_no_gap(tmp_path):
    latent, labels = images()
    weak, _, strong = write_pair(tmp_path)
    louder = logits(latent, 1)[..., :4] + torch.arange(160).view(80, 2, 1)
    options = {"class_names": CLASSES, "labels": labels, "split": "train", "model": "weak tuned"}
    adapter = fit_gap_ridge(weak, write_cache(tmp_path / "louder", logits=louder, **options), strong)
    before = strong.logits()
    torch.testing.assert_close(adapter(before), before, rtol=1e-3, atol=1e-3)


def test_labels_are_not_read(tmp_path):
    plain = fit_gap_ridge(*write_pair(tmp_path / "with"))
    latent, labels = images()
    weak = logits(latent, 1)
    options = {"class_names": CLASSES, "split": "train"}
    caches = [
        write_cache(tmp_path / "weak", logits=weak, aux_names=AUX, model="weak", **options),
        write_cache(tmp_path / "tuned", logits=tuned(weak, labels), model="weak tuned", **options),
        write_cache(tmp_path / "strong", logits=logits(latent, 2), aux_names=AUX, model="strong", **options),
    ]
    assert torch.equal(fit_gap_ridge(*caches).weight, plain.weight)


def test_the_formula():
    adapter = GapRidge(6, 3)
    adapter.weight.copy_(torch.randn(3, 6))
    adapter.bias.copy_(torch.randn(3))
    rows = 4 * torch.randn(5, 6) + 10
    expected = rows[:, :3] + z_score(rows)[0] @ adapter.weight.T + adapter.bias
    torch.testing.assert_close(adapter(rows)[:, :3], expected)
    assert torch.equal(GapRidge(6, 3)(rows), rows), "nothing learnt, nothing changed"


def test_mistakes(tmp_path):
    weak, weak_tuned, strong = write_pair(tmp_path)
    with pytest.raises(UnknownNameError, match="input of a gap ridge 'logit'; did you mean 'logits'"):
        fit_gap_ridge(weak, weak_tuned, strong, reads="logit")
    with pytest.raises(DataError, match="strong' holds bare logits, no features to read; use reads='logits'"):
        fit_gap_ridge(weak, weak_tuned, strong, reads="features")
    with pytest.raises(ConfigError, match="reads features; call it with logits and features"):
        GapRidge(6, 3, "features", 4)(torch.zeros(2, 6))
    with pytest.raises(ConfigError, match="needs their width"):
        GapRidge(6, 3, "features")
    with pytest.raises(ConfigError, match=r"takes logits \(images, 6\), got \(2, 5\)"):
        GapRidge(6, 3)(torch.zeros(2, 5))
    few = write_pair(tmp_path / "few", count=79)
    with pytest.raises(CacheError, match="80 and 79 images"):
        fit_gap_ridge(weak, few[1], strong)
    one = write_pair(tmp_path / "one", count=1)
    with pytest.raises(DataError, match="at least 2 images, got 1"):
        fit_gap_ridge(*one)

    class Broken(LogitCache):
        def logits(self, rows=slice(None), *, view=0, columns=None):
            found = super().logits(rows, view=view, columns=columns)
            if view == 1 and rows.start == 20:
                found[3] = 2.5
            return found

    with pytest.raises(DataError, match=r"row 23 \('23'\), view 1, of the target cache .*all logits equal 2.5"):
        fit_gap_ridge(weak, weak_tuned, Broken.open(strong.path), batch_size=40)


@pytest.mark.parametrize("fewer", ["weak", "weak_tuned", "strong"])
def test_one_view_is_the_pair_of_the_first_of_several(tmp_path, fewer):
    names = ("weak", "weak_tuned", "strong")
    caches = dict(zip(names, write_pair(tmp_path), strict=True))
    alone = {
        name: write_cache(
            tmp_path / "one" / name,
            logits=cache.logits()[:, None],
            ids=cache.ids,
            class_names=CLASSES,
            aux_names=() if name == "weak_tuned" else AUX,
            split="train",
            model=name,
        )
        for name, cache in caches.items()
    }
    mixed = {**caches, fewer: alone[fewer]}
    ours, expected = (fit_gap_ridge(*(found[name] for name in names)) for found in (mixed, alone))
    assert torch.equal(ours.weight, expected.weight)
    assert torch.equal(ours.bias, expected.bias)
