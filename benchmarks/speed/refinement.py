"""What TransMiter's adapter adds to an image at inference, beside the image encoder."""

from __future__ import annotations

from collections.abc import Iterator

import timm
import torch

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.results import Comparison
from benchmarks.speed.extraction import CLASSES
from benchmarks.speed.fused import inference
from vimlight.transmiter import TransMiter


@BENCHMARKS.register("refinement")
def refinement(
    bench: Bench, *, encoder: str, num_logits: int, batch: int, rounds: int, bars: dict[str, float]
) -> Iterator[Comparison]:
    """Compares the adapter with the encoder.

    Args:
        bench: Where.
        encoder: Name of a timm model.
        num_logits: Logits of an image.
        batch: Images at a time.
        rounds: How often.
        bars: What is asked of the adapter's `share` of the encoder's time.
    """
    model = timm.create_model(encoder, num_classes=0).eval().to(bench.device)
    adapter = TransMiter(num_logits, CLASSES).eval().to(bench.device)
    images = torch.randn(batch, 3, 224, 224, device=bench.device)
    logits = torch.randn(batch, num_logits, device=bench.device)
    tasks = {
        "encoder": inference(bench, model, images),
        "adapter": inference(bench, adapter.task_logits, logits),
    }
    title = f"{encoder} and an adapter of {num_logits} logits, batch {batch}"
    yield bench.compare(title, tasks, rounds=rounds, at_most={"adapter": bars["share"]})
