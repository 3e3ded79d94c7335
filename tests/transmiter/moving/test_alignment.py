"""The closed form against a direct solution, streaming against one shot, and what may not matter."""

from __future__ import annotations

import pytest
import torch
from tiny_pair import AUX, CLASSES, WIDTH, adapter, images, logits, write_pair

from vimlight.errors import AdapterError, CacheError, ConfigError, DataError
from vimlight.transmiter import TransMiter, align, align_all, choose_beta, write_cache
from vimlight.transmiter.adapters.basis import BASES, random_orthogonal
from vimlight.transmiter.cache.rows import z_score
from vimlight.transmiter.moving import alignment as room
from vimlight.transmiter.moving.alignment import cross_moments

ALL = pytest.mark.parametrize("basis", list(BASES))


def pair(count=300, source=1, target=2):
    latent, _ = images(count, 1)
    return logits(latent[:, 0], source), logits(latent[:, 0], target)


def hidden(rows, basis):
    return z_score(rows.double())[0] @ basis.detach().double().T


def descend(source, target, beta):
    """Solves the regularised orthogonal problem by steps on the orthogonal matrices, without any decomposition."""
    unit = torch.eye(WIDTH).double()
    mirror = unit.clone()
    mirror[0, 0] = -1
    found = [
        _descend(lambda q, start=start: objective(q @ start, source, target, beta)) @ start for start in (unit, mirror)
    ]
    return min(found, key=lambda q: float(objective(q, source, target, beta)))


def _descend(function):
    """Steps on the rotations, from no rotation on: those with a mirror are another component, that none leads to."""
    skew = torch.zeros(WIDTH, WIDTH, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([skew], max_iter=2000, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def loss():
        optimizer.zero_grad()
        value = function(torch.linalg.matrix_exp(skew - skew.T))
        value.backward()
        return value

    optimizer.step(loss)
    return torch.linalg.matrix_exp(skew - skew.T).detach()


def objective(q, source, target, beta):
    return (target @ q - source).square().sum() + beta * (q - torch.eye(len(q)).double()).square().sum()


@ALL
@pytest.mark.parametrize("beta", [50.0, 500.0, 5000.0])
def test_the_closed_form_solves_the_regularised_problem(basis, beta):
    torch.manual_seed(0)
    made, (source, target) = adapter(basis=basis), pair()
    moved = align(made, source, target, beta=beta)
    # The published way: moments in the adapter's space, one decomposition, the basis turned.
    h_s, h_t = hidden(source, made.basis), hidden(target, made.basis)
    u, _, v = torch.linalg.svd(h_t.T @ h_s + beta * torch.eye(WIDTH))
    published = u @ v
    torch.testing.assert_close(moved.basis.double(), published.T @ made.basis.double(), rtol=0, atol=1e-5)
    # And a way that knows no closed form.
    direct = descend(h_s, h_t, beta)
    turn = made.basis.double() @ moved.basis.double().T
    ours = objective(turn, h_s, h_t, beta)
    assert float(ours) <= float(objective(direct, h_s, h_t, beta)) * (1 + 1e-6)
    torch.testing.assert_close(turn, direct, rtol=0, atol=1e-3)


@ALL
def test_the_result_is_orthogonal_with_the_same_mlp(basis):
    made, (source, target) = adapter(basis=basis), pair()
    moved = align(made, source, target)
    torch.testing.assert_close(moved.basis @ moved.basis.T, torch.eye(WIDTH), rtol=0, atol=1e-5)
    for name, value in made.mlp.state_dict().items():
        assert torch.equal(moved.mlp.state_dict()[name], value)
    assert not torch.equal(moved.basis, made.basis)
    assert moved.basis.is_contiguous()
    assert not any(parameter is other for parameter in moved.parameters() for other in made.parameters())


@ALL
def test_the_target_projects_and_reconstructs_with_the_turned_basis(basis):
    made, (source, target) = adapter(basis=basis), pair()
    turn = (made.basis @ align(made, source, target).basis.T).double()
    rows = target.double()
    scores, scale = z_score(rows)
    h = scores @ (made.basis.double().T @ turn)
    changed = h + made.double().mlp(h)
    expected = rows + scale * ((changed @ (turn.T @ made.basis)) - scores)
    made.float()
    torch.testing.assert_close(align(made, source, target)(target).double(), expected, rtol=1e-3, atol=1e-3)


def test_a_turned_model_is_found():
    made, (source, _) = adapter(), pair()
    rotation = random_orthogonal(WIDTH - 1, 5)
    # A rotation that keeps the mean of each row, as z-scores do.
    basis = torch.linalg.qr(torch.cat([torch.ones(WIDTH, 1), torch.randn(WIDTH, WIDTH - 1)], dim=1)).Q
    whole = torch.block_diag(torch.ones(1, 1), rotation)
    turned = z_score(source)[0] @ basis @ whole @ basis.T
    moved = align(made, source, 3 * turned + 7, beta=1e-6)
    expected = (made(source) - source.mean(1, keepdim=True)) / source.std(1, keepdim=True)
    ours = (moved(3 * turned + 7) - 7) / 3 @ basis @ whole.T @ basis.T
    centred = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(ours - ours.mean(1, keepdim=True), centred, rtol=1e-3, atol=1e-3)


def test_the_same_model_is_left_where_it_is():
    made, (source, _) = adapter(), pair()
    moved = align(made, source, 5 * source - 3)
    torch.testing.assert_close(moved.basis, made.basis, rtol=0, atol=1e-5)


def test_a_strong_pull_keeps_the_basis_and_the_agreement_says_what_a_weak_one_wins():
    made, (source, target) = adapter(), pair()
    assert torch.allclose(align(made, source, target, beta=1e12).basis, made.basis, atol=1e-5)
    found = cross_moments(source, [target])[0]
    agreements = [found.agreement(found.rotation(beta)) for beta in (0.0, 1e3, 1e5)]
    assert agreements == sorted(agreements, reverse=True)
    assert found.agreement() < agreements[-1] < 1
    cosines = torch.nn.functional.cosine_similarity(z_score(source)[0], z_score(target)[0])
    assert found.agreement() == pytest.approx(float(cosines.mean()), abs=1e-6)


def test_beta_per_sample_means_the_same_for_any_number_of_images():
    made, (source, target) = adapter(), pair(100)
    once = align(made, source, target, beta_per_sample=5.0)
    thrice = align(made, source.repeat(3, 1), target.repeat(3, 1), beta_per_sample=5.0)
    torch.testing.assert_close(once.basis, thrice.basis, rtol=0, atol=1e-6)
    torch.testing.assert_close(once.basis, align(made, source, target, beta=500.0).basis, rtol=0, atol=0)
    other = align(made, source.repeat(3, 1), target.repeat(3, 1), beta=500.0)
    assert (other.basis - once.basis).abs().max() > 1e-3


def test_beta_is_chosen_by_images_left_out(monkeypatch):
    source, target = pair(60)
    monkeypatch.setattr(room, "_BLOCK", 7)  # blocks cut across the fifths
    candidates = (0.1, 3.0, 100.0)
    (z_s, _), (z_t, _) = z_score(source.double()), z_score(target.double())
    out = torch.arange(60) % 5 == 0
    errors = []
    for beta in candidates:
        left, _, right = torch.linalg.svd(z_t[~out].T @ z_s[~out] + beta * 48 * torch.eye(WIDTH))
        errors.append(float((z_t[out] @ (left @ right) - z_s[out]).square().sum()))
    assert choose_beta(source, target, candidates) == candidates[errors.index(min(errors))]


def test_models_that_have_little_in_common_are_pulled_hard():
    generator = torch.Generator().manual_seed(0)
    source, noise = torch.randn(2, 30, WIDTH, generator=generator)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    many = torch.randn(5000, WIDTH, generator=generator)
    # Rows of the other model say nothing that the rotation could be made from; or all of it.
    assert choose_beta(source, source + noise) > 10 > 1 > choose_beta(many, many @ turn) - 1e-9


def test_rows_that_do_not_decide_the_rotation_are_an_error():
    with pytest.raises(DataError, match="a choice of beta needs at least 2 images, got 1"):
        choose_beta(*(logits[:1] for logits in pair()))


@pytest.mark.parametrize("block", [64, 4096])
def test_batches_do_not_matter(monkeypatch, block):
    monkeypatch.setattr(room, "_BLOCK", block)
    made, (source, target) = adapter(), pair(301)
    whole = align(made, source, target)
    for size in (1, 7, 64, 300, 1000):
        torch.testing.assert_close(align(made, source, target, batch_size=size).basis, whole.basis, rtol=0, atol=1e-6)


def test_streaming_is_one_shot(monkeypatch):
    source, target = pair(1000)
    expected = z_score(target.double())[0].T @ z_score(source.double())[0]
    for block in (10, 333, 5000):
        monkeypatch.setattr(room, "_BLOCK", block)
        found = cross_moments(source, [target], batch_size=100)[0]
        assert found.count == 1000
        torch.testing.assert_close(found.total, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_large_offsets_cost_no_digits():
    source, target = pair(1000)
    plain, shifted = (cross_moments(source, [rows])[0].total for rows in (target, target * 0.01 - 40))
    torch.testing.assert_close(shifted, plain, rtol=0, atol=2e-3 * float(plain.abs().max()))


def test_it_is_repeatable_bit_for_bit():
    made, (source, target) = adapter(), pair()
    assert torch.equal(align(made, source, target).basis, align(made, source, target).basis)


def test_the_order_of_the_images_does_not_matter_but_the_pairs_do():
    made, (source, target) = adapter(), pair()
    order = torch.randperm(len(source))
    together = align(made, source[order], target[order])
    torch.testing.assert_close(together.basis, align(made, source, target).basis, rtol=0, atol=1e-5)
    assert (align(made, source[order], target).basis - together.basis).abs().max() > 0.01


def test_many_targets_are_as_one_at_a_time():
    made, (source, first) = adapter(), pair()
    second, third = pair(target=3)[1], pair(target=4)[1]
    together = align_all(made, source, [first, second, third])
    for target, moved in zip((first, second, third), together, strict=True):
        assert torch.equal(moved.basis, align(made, source, target).basis)


def test_a_chain_goes_on_from_where_it_is():
    made, (a, b) = adapter(), pair()
    c = pair(target=3)[1]
    there = align(align(made, a, b), b, c)
    assert [step["step"] for step in there.card.history] == ["transfer", "transfer"]
    # To C by way of B and back to A again is to A.
    back = align(align(there, c, b), b, a)
    torch.testing.assert_close(back.basis, made.basis, rtol=0, atol=1e-4)
    torch.testing.assert_close(there.basis @ there.basis.T, torch.eye(WIDTH), rtol=0, atol=1e-5)


def test_caches_are_read_in_all_their_views(tmp_path):
    weak, _, strong = write_pair(tmp_path)
    made = adapter()
    rows = [torch.cat(list(cache.batches(7))) for cache in (weak, strong)]
    for size in (1, 33, 4096):
        moved = align(made, weak, strong, batch_size=size)
        torch.testing.assert_close(moved.basis, align(made, *rows).basis, rtol=0, atol=1e-6)
    assert moved.card.model == "strong"
    step = moved.card.history[-1]
    assert (step["step"], step["rows"], step["beta"]) == ("transfer", 160, 500.0)
    assert step["caches"] == {
        "source": {"model": "weak", "hash": weak.hash},
        "target": {"model": "strong", "hash": strong.hash},
    }


@pytest.mark.parametrize("fewer", ["strong", "weak"])
def test_one_view_is_the_pair_of_the_first_of_several(tmp_path, fewer):
    caches = dict(zip(("weak", "tuned", "strong"), write_pair(tmp_path), strict=True))
    common = {"class_names": CLASSES, "aux_names": AUX, "split": "train"}
    alone = {
        name: write_cache(
            tmp_path / f"one/{name}", logits=caches[name].logits()[:, None], ids=caches[name].ids, model=name, **common
        )
        for name in ("weak", "strong")
    }
    mixed = {**caches, fewer: alone[fewer]}
    expected = align(adapter(), alone["weak"], alone["strong"]).basis
    assert torch.equal(align(adapter(), mixed["weak"], mixed["strong"], batch_size=7).basis, expected)
    assert choose_beta(mixed["weak"], mixed["strong"]) == choose_beta(alone["weak"], alone["strong"])
    several, one = align_all(adapter(), caches["weak"], [caches["strong"], alone["strong"]])
    assert torch.equal(one.basis, expected)
    assert torch.equal(several.basis, align(adapter(), caches["weak"], caches["strong"]).basis)


def test_memory_does_not_grow_with_the_number_of_rows(monkeypatch):
    monkeypatch.setattr(room, "_BLOCK", 64)
    alive, original = [], room.CrossMoments.add

    def add(self, source, target):
        alive.append(source.untyped_storage().nbytes() + target.untyped_storage().nbytes())
        original(self, source, target)

    monkeypatch.setattr(room.CrossMoments, "add", add)
    source, target = pair(1000)
    cross_moments(source, [target], batch_size=50)
    assert set(alive) == {2 * 64 * WIDTH * 4}


@pytest.mark.parametrize(
    ("value", "fault"),
    [(float("nan"), "a logit is not finite"), (float("inf"), "a logit is not finite"), (None, "all")],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_row_that_says_nothing_is_named(side, value, fault):
    source, target = pair(100)
    wrong = source if side == "source" else target
    if value is None:
        wrong[37] = 20.1
    else:
        wrong[37, 3] = value
    with pytest.raises(DataError, match=f"row 37 of the {side} logits: {fault}.*leave the image out"):
        align(adapter(), source, target, batch_size=10)


def test_a_row_of_a_cache_is_named_with_its_image(tmp_path):
    class Broken(type(write_pair(tmp_path, ids=[f"{number}.jpg" for number in range(80)])[0])):
        def batches(self, batch_size=4096, *, views="all"):
            for batch in super().batches(batch_size, views=views):
                batch[5] = float("nan")
                yield batch

    weak = Broken.open(tmp_path / "weak")
    with pytest.raises(DataError, match=r"row 2 \('2.jpg'\), view 1, of the source cache '.*weak': a logit is not"):
        align(adapter(), weak, Broken.open(tmp_path / "strong"))


def test_what_does_not_fit_is_refused(tmp_path):
    made, (source, target) = adapter(), pair(100)
    with pytest.raises(ConfigError, match="beta must be at least 0, got -1"):
        align(made, source, target, beta=-1)
    with pytest.raises(ConfigError, match=r"takes logits \(images, 16\), got \(100, 15\)"):
        align(made, source[:, 1:], target[:, 1:])
    with pytest.raises(DataError, match=r"source logits are \(100, 16\), the target logits \(99, 16\)"):
        align(made, source, target[1:])
    with pytest.raises(DataError, match=r"target logits must be \(images, classes\), got \(100,\)"):
        align(made, source, target[:, 0])
    with pytest.raises(DataError, match="source logits have no rows"):
        align(made, source[:0], target[:0])
    weak, _, strong = write_pair(tmp_path)
    described = adapter().describe(class_names=("cat", "dog", "fox", "elk"), aux_names=AUX, model="weak")
    with pytest.raises(AdapterError, match=r"other classes than the adapter: missing \['elk'\], extra \['owl'\]"):
        align(described, weak, strong)
    described.describe(class_names=CLASSES, aux_names=(*AUX[1:], AUX[0]))
    with pytest.raises(AdapterError, match=r"other auxiliary classes.*another order: column 0 is 'aux0' instead of"):
        align(described, weak, strong)
    described.describe(aux_names=AUX)
    with pytest.raises(AdapterError, match="holds logits of 'strong', the adapter refines those of 'weak'"):
        align(described, strong, weak)
    with pytest.raises(AdapterError, match=r"has \(classes, logits\) \(4, 16\), the adapter takes \(5, 16\)"):
        align(TransMiter(WIDTH, 5), weak, strong)


def test_permuted_images_are_refused(tmp_path):
    weak, _, _ = write_pair(tmp_path)
    latent, labels = images()
    common = {"class_names": CLASSES, "aux_names": AUX, "split": "train", "model": "strong"}
    ids = [str(number) for number in range(80)]
    other = write_cache(tmp_path / "other", logits=logits(latent, 2).flip(0), ids=ids[::-1], **common)
    with pytest.raises(CacheError, match="the same images in another order: row 0 is '0' in the first and '79'"):
        align(adapter(), weak, other)
    more = write_cache(tmp_path / "more", logits=logits(latent, 2).repeat(1, 2, 1), ids=ids, labels=labels, **common)
    with pytest.raises(CacheError, match="2 and 4 views"):
        align(adapter(), weak, more)
    common["class_names"] = ("cat", "dog", "fox", "elk")
    wrong = write_cache(tmp_path / "wrong", logits=logits(latent, 2), ids=ids, **common)
    with pytest.raises(
        CacheError, match=r"other classes: missing in the second \['owl'\]; extra in the second \['elk'\]"
    ):
        align(adapter(), weak, wrong)


@pytest.mark.cuda
def test_on_a_gpu():
    made, (source, target) = adapter(), pair()
    on_gpu = align(adapter().cuda(), source, target)
    assert on_gpu.basis.is_cuda
    torch.testing.assert_close(on_gpu.basis.cpu(), align(made, source, target).basis, rtol=0, atol=1e-5)
