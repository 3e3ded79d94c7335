"""The shipped image-text pair: loads offline, both halves agree, and it knows what its card says."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vimlight.embedded as embedded
from vimlight.data.scenes import COLOURS, TEXTURES, draw_glyphs, draw_scenes
from vimlight.embedded import pair, towers
from vimlight.errors import CheckpointError, UnknownNameError

NAMES = embedded.PAIR_MODELS


@pytest.fixture(scope="module", params=NAMES)
def loaded(request):
    return request.param, *embedded.load_pair_model(request.param)


@torch.no_grad()
def accuracy(loaded, images: np.ndarray, texts: list[str], targets: np.ndarray) -> float:
    _, model, tokenizer, preprocess = loaded
    pixels = torch.stack([preprocess(Image.fromarray(image.transpose(1, 2, 0))) for image in images])
    logits, _ = model.get_logits(pixels, tokenizer(texts))
    return float((logits.argmax(dim=1).numpy() == targets).mean())


def test_colours_are_told_from_words(loaded):
    scenes = draw_scenes(100, 11, difficulty=0.3)
    texts = [f"a {colour} object" for colour in COLOURS]
    assert accuracy(loaded, scenes.images, texts, scenes.layout.colour[:, 0]) > 0.8


def test_textures_are_told_from_words(loaded):
    scenes = draw_scenes(100, 12, difficulty=0.3)
    texts = [f"a {texture} object" for texture in TEXTURES]
    assert accuracy(loaded, scenes.images, texts, scenes.layout.texture[:, 0]) > 0.6


def test_letters_are_told_from_words(loaded):
    glyphs = draw_glyphs(100, 13, difficulty=0.3)
    texts = [f"a capital letter {chr(code)}" for code in range(ord("A"), ord("Z") + 1)]
    assert accuracy(loaded, glyphs.images, texts, glyphs.glyph - ord("A")) > 0.3


def test_the_base_model_is_the_better_one():
    small, base = (embedded.pair_card(name)["reached"] for name in NAMES)
    assert base["held_out"] > small["held_out"] + 5
    assert base["seen"] > small["seen"] + 5


def test_the_card_says_how_the_weights_came_about(loaded):
    card = embedded.pair_card(loaded[0])
    assert card["name"] == loaded[0]
    assert card["license"] == "Apache-2.0"
    assert {"data", "recipe", "reached", "versions"} <= set(card)
    assert {"seed", "lr", "batch", "images"} <= set(card["recipe"])


def test_the_image_tower_alone_is_the_pair_s_image_tower(loaded):
    name, model, *_ = loaded
    tower = timm.create_model(name, pretrained=True).eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(tower(images), model.visual.trunk(images))
    assert tower.pretrained_cfg["mean"] == towers.MEAN


@pytest.mark.parametrize("name", NAMES)
def test_the_image_tower_takes_classes_and_other_sizes(name):
    model = timm.create_model(name, pretrained=True, num_classes=5, img_size=96)
    assert model(torch.rand(1, 3, 96, 96)).shape == (1, 5)
    assert all({"attn", "mlp"} <= dict(block.named_children()).keys() for block in model.blocks)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small(name):
    assert towers.weights_path(name).stat().st_size < 8e6


def test_words_of_captions_are_one_token_each():
    tokens = embedded.pair_tokenizer()(["a large red striped star at the top left", "two small blue crosses"])
    assert tokens.shape == (2, 16)
    assert (tokens != 0).sum(dim=1).tolist() == [11, 6]


def test_unknown_names_and_missing_or_foreign_weights_are_told(monkeypatch, tmp_path):
    with pytest.raises(UnknownNameError, match="vit_scenes_small"):
        embedded.load_pair_model("vit_scenes_smal")
    monkeypatch.setattr(pair, "weights_path", lambda name: tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="reinstall"):
        embedded.load_pair_model("vit_scenes_small")
    monkeypatch.setattr(pair, "weights_path", lambda name: towers.weights_path("vit_scenes_base"))
    with pytest.raises(CheckpointError, match="does not fit"):
        embedded.load_pair_model("vit_scenes_small")


@pytest.mark.slow
def test_registering_the_towers_does_not_import_open_clip():
    code = "import sys, vimlight.embedded; sys.exit('open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
