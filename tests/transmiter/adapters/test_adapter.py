"""The adapter: its formula, where it starts, and what of it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_pair import CLASSES, WIDTH, adapter, images, logits, tuned
from torch import nn

from vimlight.errors import ConfigError
from vimlight.transmiter import TransMiter
from vimlight.transmiter.adapters.basis import BASES
from vimlight.transmiter.learning.extraction import distillation_loss

ALL = pytest.mark.parametrize("basis", list(BASES))


@ALL
def test_an_untrained_adapter_changes_nothing_bit_for_bit(basis):
    rows = torch.randn(9, 30) * torch.logspace(-2, 2, 9)[:, None] + 17
    made = TransMiter(num_logits=30, num_classes=5, basis=basis, hidden_ratio=4, seed=0)
    assert torch.equal(made(rows), rows)
    assert torch.equal(made.task_logits(rows), rows[:, :5])


@ALL
def test_the_formula(basis):
    made, rows = adapter(basis=basis).double(), logits(images(10)[0][:, 0], 1).double()
    mean, std = rows.mean(dim=1, keepdim=True), rows.std(dim=1, keepdim=True) + 1e-6
    norm, widen, gelu, narrow = made.mlp
    assert [type(layer) for layer in made.mlp] == [nn.LayerNorm, nn.Linear, nn.GELU, nn.Linear]
    hidden = ((rows - mean) / std) @ made.basis.T
    changed = hidden + narrow(gelu(widen(norm(hidden))))
    expected = (changed @ made.basis) * std + mean
    torch.testing.assert_close(made(rows), expected, rtol=1e-6, atol=1e-6)
    assert (expected - rows).abs().max() > 0.5, "an adapter that changes nothing would prove nothing"


@ALL
def test_task_logits_are_the_first_columns(basis):
    made, rows = adapter(basis=basis), torch.randn(9, WIDTH)
    torch.testing.assert_close(made.task_logits(rows), made(rows)[:, : len(CLASSES)], rtol=1e-4, atol=1e-5)


@ALL
def test_scale_and_offset_of_the_logits_pass_through(basis):
    made, rows = adapter(basis=basis).double(), torch.randn(9, WIDTH).double()
    scaled = made(30 * rows - 12)
    torch.testing.assert_close(scaled, 30 * made(rows) - 12, rtol=1e-4, atol=1e-4)


@ALL
def test_every_parameter_moves_within_a_few_steps(basis):
    made = TransMiter(WIDTH, len(CLASSES), basis=basis)
    latent, labels = images()
    rows = logits(latent, 1)
    goal = tuned(rows, labels)[:, 0]
    start = copy.deepcopy(made.state_dict())
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for _ in range(4):
        loss = distillation_loss(made.task_logits(rows[:, 0]), goal, 1.0, 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    moved = {name for name, value in made.named_parameters() if not torch.equal(value, start[name])}
    assert moved == {name for name, _ in made.named_parameters()}
    assert losses == sorted(losses, reverse=True)


def test_the_seed_decides_and_nothing_else_is_touched(untouched_rng):
    first, again, other = (TransMiter(20, 4, seed=seed) for seed in (1, 1, 2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.mlp[1].weight, other.mlp[1].weight)
    assert not torch.equal(first.basis, other.basis)


@pytest.mark.parametrize("ratio", [0.5, 1, 4])
def test_sizes_come_from_the_arguments(ratio):
    made = TransMiter(20, 4, hidden_ratio=ratio)
    assert made.mlp[1].weight.shape == (int(20 * ratio), 20)
    assert made(torch.randn(3, 20)).shape == (3, 20)


def test_its_cost_is_what_the_paper_says():
    made = TransMiter(1024, 10)
    numbers = sum(parameter.numel() for parameter in made.parameters()) + made.basis.numel()
    assert numbers == 9_444_352
    # Both ways through the basis and both layers.
    products = 2 * made.basis.numel() + made.mlp[1].weight.numel() + made.mlp[3].weight.numel()
    assert products == pytest.approx(0.0105e9, rel=0.01)


@ALL
def test_half_precision_in_and_mixed_precision(basis):
    made, rows = adapter(basis=basis), torch.randn(9, WIDTH)
    assert made(rows.half()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(rows)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - made(rows)).abs().max() < 0.2 * (made(rows) - rows).abs().max()


@pytest.mark.slow
@ALL
def test_compiled_and_plain_agree(basis):
    made, rows = adapter(basis=basis), torch.randn(9, WIDTH)
    torch.testing.assert_close(torch.compile(made, backend="aot_eager")(rows), made(rows), rtol=1e-4, atol=1e-5)


def test_a_constant_row_stays_finite():
    rows = torch.full((2, WIDTH), 3.0)
    assert torch.isfinite(adapter()(rows)).all()


@ALL
def test_what_inference_needs_computes_the_same(basis):
    made, rows = adapter(basis=basis), torch.randn(9, WIDTH)
    lean = made.for_inference()
    assert not list(lean.projection.parameters())
    torch.testing.assert_close(lean(rows), made(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
@ALL
def test_on_a_gpu(basis):
    made, rows = adapter(basis=basis), torch.randn(9, WIDTH)
    moved = copy.deepcopy(made).cuda()
    assert moved.basis.is_cuda
    torch.testing.assert_close(moved(rows.cuda()).cpu(), made(rows), rtol=1e-3, atol=1e-3)


def test_mistakes():
    with pytest.raises(ConfigError, match="num_logits=1 and num_classes=1"):
        TransMiter(1, 1)
    with pytest.raises(ConfigError, match="num_logits=5 and num_classes=6"):
        TransMiter(5, 6)
    with pytest.raises(ConfigError, match="hidden_ratio must widen 5 logits to at least 1, got 0"):
        TransMiter(5, 2, hidden_ratio=0)
    with pytest.raises(ConfigError, match=r"takes logits \(images, 16\), got \(3, 15\)"):
        adapter()(torch.zeros(3, 15))
    with pytest.raises(ConfigError, match="3 class names and 16 names in all, for an adapter of 4 task classes"):
        adapter().describe(class_names=("a", "b", "c"), aux_names=tuple("defghijklmnop"))
