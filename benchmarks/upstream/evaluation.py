"""Zero-shot accuracy of an image-text model on drawn scenes, with compositions seen and held out in training."""

from __future__ import annotations

import numpy as np
import torch
from batches import CAPITALS, compositions, names_of, normalise, prompts
from numpy.typing import NDArray
from open_clip import CustomTextCLIP, SimpleTokenizer
from torch import Tensor

from vimlight.data.scenes import HELD_OUT_FONTS, TRAINING_FONTS, draw_glyphs, draw_scenes

__all__ = ["evaluate"]

_SEED = 777_777


@torch.no_grad()
def evaluate(
    model: CustomTextCLIP, tokenizer: SimpleTokenizer, images: int = 1000, difficulty: float = 0.5
) -> dict[str, float]:
    """Returns accuracies in percent.

    Args:
        model: The model; its mode is restored afterwards.
        tokenizer: Its tokeniser.
        images: Test images of seen compositions, as many of held-out ones, and half as many letters of seen and of
            held-out fonts.
        difficulty: Difficulty of the test images.

    Returns:
        `seen` and `held_out`: right among all 600 compositions; then shape, colour and texture of the named
        composition on the held-out ones; `letters` and `letters_new_fonts`: right among 26 capitals.
    """
    training = model.training
    model.eval()
    triples = np.concatenate([compositions(held_out=False), compositions(held_out=True)])
    texts = _embed_texts(model, tokenizer, prompts(triples))
    figures: dict[str, float] = {}
    for offset, held_out in enumerate((False, True)):
        scenes = draw_scenes(images, _SEED + offset, difficulty=difficulty, compositions=compositions(held_out))
        named = triples[_nearest(model, scenes.images, texts)]
        layout = scenes.layout
        right = named == np.stack([layout.shape[:, 0], layout.colour[:, 0], layout.texture[:, 0]], axis=1)
        figures["held_out" if held_out else "seen"] = _percent(right.all(axis=1))
    figures |= {name: _percent(right[:, column]) for column, name in enumerate(("shape", "colour", "texture"))}
    letters = _embed_texts(model, tokenizer, names_of("glyph"))
    for offset, (name, fonts) in enumerate((("letters", TRAINING_FONTS), ("letters_new_fonts", HELD_OUT_FONTS))):
        glyphs = draw_glyphs(images // 2, _SEED + 2 + offset, difficulty=difficulty, fonts=fonts)
        figures[name] = _percent(_nearest(model, glyphs.images, letters) == glyphs.glyph - ord(CAPITALS[0]))
    model.train(training)
    return figures


def _embed_texts(model: CustomTextCLIP, tokenizer: SimpleTokenizer, texts: list[str]) -> Tensor:
    return torch.cat([model.encode_text(chunk, normalize=True) for chunk in tokenizer(texts).split(100)])


def _nearest(model: CustomTextCLIP, images: NDArray[np.uint8], texts: Tensor) -> NDArray[np.int64]:
    chunks = torch.from_numpy(images).split(100)
    nearest = [(model.encode_image(normalise(chunk), normalize=True) @ texts.T).argmax(dim=1) for chunk in chunks]
    return np.asarray(torch.cat(nearest).numpy())


def _percent(right: NDArray[np.bool_]) -> float:
    return round(100 * float(right.mean()), 1)
