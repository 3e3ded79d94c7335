"""A weak and a strong model of invented images, and the weak one's fine-tuned twin, as caches of bare logits."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from vimlight.transmiter import TransMiter, write_cache

CLASSES = ("cat", "dog", "fox", "owl")
AUX = tuple(f"aux{number}" for number in range(12))
WIDTH = len(CLASSES) + len(AUX)


def images(count=80, views=2, seed=0):
    """Latent images `(count, views, 8)` and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    centres = torch.randn(len(CLASSES), 8, generator=torch.Generator().manual_seed(99))
    return centres[labels][:, None] + 0.4 * torch.randn(count, views, 8, generator=generator), labels


def logits(latent, model):
    """What a model, known by its number, says of latent images: its own scale, offset and noise."""
    generator = torch.Generator().manual_seed(model)
    clean = latent @ torch.randn(8, WIDTH, generator=generator)
    return (1 + model) * (clean + 0.5 * torch.randn(clean.shape, generator=generator)) + 20


def tuned(zero_shot, labels):
    """Task logits of a fine-tuned model."""
    return zero_shot[..., : len(CLASSES)] + 4 * F.one_hot(labels, len(CLASSES)).view(-1, 1, len(CLASSES))


def write_pair(root, count=80, views=2, unlabelled=False, **options):
    """Writes the caches `weak`, `weak_tuned` and `strong` of the same images, and returns them."""
    latent, labels = images(count, views)
    weak, strong = logits(latent, 1), logits(latent, 2)
    common = {"class_names": CLASSES, "labels": None if unlabelled else labels, "split": "train"}
    common |= {"partitions": {"base": [0, 1], "novel": [2, 3]}, **options}
    return (
        write_cache(root / "weak", logits=weak, aux_names=AUX, model="weak", **common),
        write_cache(root / "weak_tuned", logits=tuned(weak, labels), model="weak tuned", **common),
        write_cache(root / "strong", logits=strong, aux_names=AUX, model="strong", **common),
    )


def adapter(seed=0, strength=0.3, **options):
    """An adapter that changes something."""
    made = TransMiter(**{"num_logits": WIDTH, "num_classes": len(CLASSES), "seed": seed, **options})
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=generator))
    return made.eval()
