"""The recipe of the shipped models, in miniature."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vimlight.embedded import create_pair_model

RECIPE = Path(__file__).parents[2] / "benchmarks" / "upstream"
pytestmark = pytest.mark.skipif(not RECIPE.is_dir(), reason="the recipe is not part of this distribution")


@pytest.fixture(autouse=True)
def recipe_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE))


def settings(output: Path, **changes) -> Namespace:
    values = {"model": "small", "minutes": None, "steps": 4, "batch": 16, "lr": 1e-3, "weight_decay": 0.05, "seed": 0}
    return Namespace(**(values | {"threads": 1, "grow_from": None, "output": output} | changes))


def test_held_out_compositions_are_a_fifth_of_every_pair_and_never_drawn():
    from batches import compositions, draw_batch

    held_out, seen = compositions(held_out=True), compositions(held_out=False)
    assert len(held_out) == 120
    assert len(seen) == 480
    for first, second, each in ((0, 1, 1), (0, 2, 2), (1, 2, 2)):
        _, counts = np.unique(held_out[:, [first, second]], axis=0, return_counts=True)
        assert counts.min() >= each
    forbidden = {tuple(row) for row in held_out.tolist()}
    facts = draw_batch(200, 0, 0.5).facts
    assert not forbidden & {tuple(row) for row in facts[facts[:, 0] <= 1][:, 2:5].tolist()}


def test_batches_are_reproducible_and_captions_match_their_images():
    from batches import draw_batch

    first, again = draw_batch(40, 3, 0.4), draw_batch(40, 3, 0.4)
    assert torch.equal(first.images, again.images)
    assert first.texts == again.texts
    assert first.matches.diagonal().all()
    assert first.matches.float().mean() < 0.5


def test_growing_keeps_the_function():
    from grow import grow

    small, base = create_pair_model("vit_scenes_small"), create_pair_model("vit_scenes_base")
    # Values away from initialisation, where biases and the like would be zero.
    for parameter in small.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    grow(small.state_dict(), base, seed=0)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(small.eval().encode_image(images), base.eval().encode_image(images), atol=1e-5)
    stem = base.visual.trunk.patch_embed.backbone
    first, second = stem.get_submodule("1").conv.weight.chunk(2, dim=1)
    assert not torch.allclose(first, second)


@pytest.mark.slow
def test_training_moves_everything_and_resumes_where_it_stopped(tmp_path):
    from train import Trainer

    whole = Trainer(settings(tmp_path / "whole"))
    before = {name: parameter.clone() for name, parameter in whole.model.named_parameters()}
    for _ in range(4):
        assert all(np.isfinite(loss) for loss in whole.update().values())
    assert [name for name, value in whole.model.named_parameters() if torch.equal(value, before[name])] == []
    (tmp_path / "parts").mkdir()
    part = Trainer(settings(tmp_path / "parts"))
    part.update(), part.update(), part.save()
    resumed = Trainer(settings(tmp_path / "parts"))
    resumed.update(), resumed.update()
    assert resumed.step == 4
    assert resumed.progress == 1
    for name, value in whole.model.state_dict().items():
        assert torch.allclose(value.float(), resumed.model.state_dict()[name].float(), atol=1e-4), name


def test_the_exported_file_is_half_precision_with_a_card(tmp_path):
    from export import export

    model = create_pair_model("vit_scenes_small")
    export(model, tmp_path / "x.safetensors", "vit_scenes_small", {"seed": 0}, {"seen": 1.0})
    tensors = load_file(tmp_path / "x.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float16}
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["recipe"] == {"seed": 0}
    assert card["versions"]["torch"]


def test_evaluation_of_an_untrained_model_is_near_chance():
    from evaluation import evaluate

    from vimlight.embedded import pair_tokenizer

    figures = evaluate(create_pair_model("vit_scenes_small"), pair_tokenizer(), images=60)
    assert set(figures) == {"seen", "held_out", "shape", "colour", "texture", "letters", "letters_new_fonts"}
    assert figures["seen"] < 10
    assert figures["letters"] < 30
