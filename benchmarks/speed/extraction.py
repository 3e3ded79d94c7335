"""A step of TransMiter's extraction, with a fixed and a learned basis, beside the published recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.results import Comparison
from vimlight.transmiter import TransMiter
from vimlight.transmiter.learning.extraction import distillation_loss

CLASSES = 10


@BENCHMARKS.register("extraction")
def extraction(bench: Bench, *, num_logits: int, batch: int, rounds: int) -> Iterator[Comparison]:
    """Compares one step of training.

    Args:
        bench: Where.
        num_logits: Logits of an image.
        batch: Images of a step.
        rounds: How often.
    """
    logits, tuned = (torch.randn(batch, width, device=bench.device) for width in (num_logits, CLASSES))
    models = {
        "matrix exponential": Published(num_logits),
        "fixed": TransMiter(num_logits, CLASSES, "fixed"),
        "learned": TransMiter(num_logits, CLASSES, "learned"),
    }
    tasks = {name: step(model.to(bench.device), logits, tuned) for name, model in models.items()}
    yield bench.compare(f"step of extraction, {num_logits} logits, batch {batch}", tasks, rounds=rounds)


class Published(nn.Module):
    """The published recipe, written plainly: orthogonality by the matrix exponential of a skew-symmetric matrix."""

    def __init__(self, num_logits: int) -> None:
        super().__init__()
        basis = nn.Linear(num_logits, num_logits, bias=False)
        nn.init.orthogonal_(basis.weight)
        self.basis = nn.utils.parametrizations.orthogonal(basis, orthogonal_map="matrix_exp")
        self.mlp = nn.Sequential(
            nn.LayerNorm(num_logits),
            nn.Linear(num_logits, 4 * num_logits),
            nn.GELU(),
            nn.Linear(4 * num_logits, num_logits),
        )
        nn.init.zeros_(self.mlp[3].weight)
        nn.init.zeros_(self.mlp[3].bias)

    def forward(self, logits: Tensor) -> Tensor:
        """Returns refined logits."""
        mean, std = logits.mean(dim=1, keepdim=True), logits.std(dim=1, keepdim=True)
        hidden = self.basis((logits - mean) / std)
        return ((hidden + self.mlp(hidden)) @ self.basis.weight) * std + mean


def step(model: nn.Module, logits: Tensor, tuned: Tensor) -> Callable[[], None]:
    """Returns one step of extraction."""
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    refine = model.task_logits if isinstance(model, TransMiter) else lambda rows: model(rows)[:, :CLASSES]

    def run() -> None:
        optimizer.zero_grad()
        distillation_loss(refine(logits), tuned, 1.0, 0.5).backward()
        optimizer.step()

    return run
