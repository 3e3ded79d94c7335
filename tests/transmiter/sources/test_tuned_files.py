"""Fine-tuned models from other tools' files, in exactly their layouts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import write_open_clip
from torch.nn import functional as F

from vimlight.cli import main
from vimlight.data import DownstreamDataModule
from vimlight.errors import CheckpointError, ConfigError
from vimlight.transmiter import LogitCache, write_cache
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.models.image_text import load_model
from vimlight.transmiter.sources.files import load_tuned

NAMES = ("owl", "red_fox")
PARTS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
WIDTHS = {"text": 16, "vision": 32}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images, a model of 2 text blocks and 3 image blocks with QuickGELU, and its zero-shot cache."""
    folder = tmp_path_factory.mktemp("tuned")
    for number in range(4):
        rough = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        (folder / "photos" / NAMES[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rough).save(folder / "photos" / NAMES[number % 2] / f"{number}.png")
    write_open_clip(folder / "model", quick_gelu=True, layers=(2, 3))
    data = DownstreamDataModule("image_folder", {"root": str(folder / "photos")})
    settings = CacheSettings(split="test", templates=["a {}.", "one {}"])
    build_cache(folder / "zero", load_model(f"local-dir:{folder / 'model'}"), data, settings)
    return folder


@pytest.fixture
def zero(place):
    return LogitCache.open(place / "zero")


def lora(blocks=(("text", 0), ("text", 1), ("vision", 0), ("vision", 1), ("vision", 2)), rank=2, alpha=3, **about):
    """What CLIP-LoRA saves, text blocks first."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for number, (tower, _) in enumerate(blocks):
        sizes = {"w_lora_A": (rank, WIDTHS[tower]), "w_lora_B": (WIDTHS[tower], rank)}
        weights[f"layer_{number}"] = {
            part: {key: 0.5 * torch.randn(size, generator=generator) for key, size in sizes.items()}
            for part in ("q_proj", "v_proj", "proj")
        }
    about = {"r": rank, "alpha": alpha, "encoder": "both", "params": ["q", "v", "o"], "position": "all", **about}
    return {"weights": weights, "metadata": about}


FACTORS = {"w_lora_A": torch.ones(2, 16), "w_lora_B": torch.ones(16, 2)}


def relayered(**layers):
    content = lora()
    return {**content, "weights": {**content["weights"], **layers}}


def by_the_formula(place, content, blocks):
    """Features of images and classes of the model with alpha / sqrt(r) B A added to its weights."""
    model = open_clip.create_model(f"local-dir:{place / 'model'}").eval()
    towers = {"text": model.transformer.resblocks, "vision": model.visual.transformer.resblocks}
    about = content["metadata"]
    with torch.no_grad():
        for number, (tower, block) in enumerate(blocks):
            attention = towers[tower][block].attn
            for part, pair in content["weights"][f"layer_{number}"].items():
                change = about["alpha"] / math.sqrt(about["r"]) * pair["w_lora_B"] @ pair["w_lora_A"]
                width = len(change)
                if part == "proj":
                    attention.out_proj.weight += change
                else:
                    attention.in_proj_weight[PARTS[part] * width : (PARTS[part] + 1) * width] += change
        names = [name.replace("_", " ") for name in NAMES]
        tokenizer = open_clip.get_tokenizer(f"local-dir:{place / 'model'}")
        return model, open_clip.build_zero_shot_classifier(model, tokenizer, names, ["a {}.", "one {}"]).T


EVERY = {
    "both": [("text", 0), ("text", 1), ("vision", 0), ("vision", 1), ("vision", 2)],
    "text": [("text", 0), ("text", 1)],
    "vision": [("vision", 0), ("vision", 1), ("vision", 2)],
}


@pytest.mark.parametrize("encoder", EVERY)
def test_clip_lora_by_the_square_root_of_its_rank(place, zero, tmp_path, capsys, encoder):
    content = lora(EVERY[encoder], encoder=encoder)
    torch.save(content, tmp_path / "lora_weights.pt")
    main(["cache", "tuned", str(place / "zero"), str(tmp_path / "lora_weights.pt"), "--out", str(tmp_path / "out")])
    found = LogitCache.open(tmp_path / "out")
    model, text = by_the_formula(place, content, EVERY[encoder])
    torch.testing.assert_close(found.head.weights, text, rtol=1e-4, atol=1e-5)
    plain = open_clip.create_model(f"local-dir:{place / 'model'}").eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tuned = load_tuned(tmp_path / "lora_weights.pt", zero).tuning
        torch.testing.assert_close(tuned.rows(images), model.encode_image(images, normalize=True), rtol=1e-4, atol=1e-5)
        moved = (tuned.rows(images) - plain.encode_image(images, normalize=True)).abs().max()
    assert (moved > 1e-3) == (encoder != "text")
    assert ((text - zero.head.weights).abs().max() > 1e-3) == (encoder != "vision")
    assert found.model == f"{zero.model}+clip_lora"
    assert found.manifest.data["tuning"]["alpha"] == 3
    assert list(found.ids) == list(zero.ids)
    assert ((found.features() - zero.features()).abs().max() > 1e-2) == (encoder != "text")
    assert "as clip_lora" in capsys.readouterr().out


def coop(zero, count=3, **more):
    embedding = load_model(**{k: v for k, v in zero.manifest.model_arguments.items() if k != "precision"}).model
    weight = embedding.token_embedding.weight
    context = 0.1 * torch.randn(count, 16, generator=torch.Generator().manual_seed(1))
    start = weight[49406].half().expand(2, 1, 16).clone()
    state = {"ctx": context, "token_prefix": start, "token_suffix": torch.zeros(2, 16 - 1 - count, 16), **more}
    return {"state_dict": state, "epoch": 50, "optimizer": {"state": {}}, "val_result": None}


def test_coop_puts_its_context_before_every_name(place, zero, tmp_path):
    content = coop(zero)
    torch.save(content, tmp_path / "model.pth.tar-50")
    main(["cache", "tuned", str(place / "zero"), str(tmp_path / "model.pth.tar-50"), "--out", str(tmp_path / "out")])
    found = LogitCache.open(tmp_path / "out")
    assert torch.equal(found.features(), zero.features())
    model = open_clip.create_model(f"local-dir:{place / 'model'}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{place / 'model'}")(["X X X owl.", "X X X red fox."])
    context = content["state_dict"]["ctx"].expand(2, -1, -1)
    model.token_embedding.register_forward_hook(
        lambda module, inputs, out: torch.cat([out[:, :1], context, out[:, 4:]], dim=1)
    )
    with torch.no_grad():
        expected = F.normalize(model.encode_text(tokens), dim=1)
    torch.testing.assert_close(found.head.weights, expected, rtol=1e-4, atol=1e-5)
    assert found.manifest.data["tuning"]["class_name"] == "behind the context"


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_text_features_take_the_place_of_the_zero_shot_ones(place, zero, tmp_path, suffix):
    text = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    file = tmp_path / f"text{suffix}"
    torch.save(text, file) if suffix == ".pt" else np.save(file, text.numpy())
    main(["cache", "tuned", str(place / "zero"), str(file), "--out", str(tmp_path / "out")])
    found = LogitCache.open(tmp_path / "out")
    torch.testing.assert_close(found.head.weights, F.normalize(text, dim=1))
    torch.testing.assert_close(found.logits(), zero.head.scale * zero.features() @ found.head.weights.T)


CURE = "give the tuned text features"
REFUSED = {
    "no rank": (lambda zero: lora(r=None), "says of itself {.*, not r above 0, alpha, encoder and position"),
    "rank of nothing": (lambda zero: lora(r=0), "says of itself {.*, not r above 0"),
    "alpha as text": (lambda zero: lora(alpha="3"), "says of itself {.*, not r above 0"),
    "no place": (lambda zero: lora(position=["all"]), "says of itself {.*, not r above 0"),
    "other tower": (lambda zero: lora(encoder=["both"]), "says of itself {.*, not r above 0"),
    "nothing of itself": (lambda zero: {**lora(), "metadata": 3}, "says of itself 3, not r above 0"),
    "layers in a list": (lambda zero: {**lora(), "weights": [1] * 5}, "has no layers by name"),
    "a layer of nothing": (lambda zero: relayered(layer_0=3), "two factors w_lora_A and w_lora_B of '' in 'layer_0'"),
    "a part of nothing": (lambda zero: relayered(layer_1={"q_proj": {}}), "no two factors .* of 'q_proj' in 'layer_1'"),
    "another part": (lambda zero: relayered(layer_0={"w_proj": FACTORS}), "no two factors .* of 'w_proj' in 'layer_0'"),
    "other ranks": (
        lambda zero: relayered(layer_0={"q_proj": {**FACTORS, "w_lora_A": torch.ones(3, 16)}}),
        "no two factors .* of 'q_proj' in 'layer_0'",
    ),
    "a context of nothing": (lambda zero: coop(zero, ctx=3), "'state_dict' holds no plain tensor under 'ctx'"),
    "a flat start": (lambda zero: coop(zero, token_prefix=torch.ones(3)), "its token for the start is another"),
    "MaPLe": (lambda zero: coop(zero, **{"compound_prompts_text.0": torch.zeros(2, 16)}), f"prompts within.*{CURE}"),
    "PromptSRC": (
        lambda zero: {"state_dict": {"prompt_learner.ctx": torch.zeros(4, 16), "image_encoder.VPT": torch.zeros(4, 8)}},
        f"holds prompts within the towers, .*'image_encoder.VPT'.*{CURE}",
    ),
    "no context": (lambda zero: {"state_dict": {"fc.weight": torch.zeros(2, 2)}}, f"more than CoOp's context.*{CURE}"),
    "contexts of classes": (lambda zero: coop(zero, ctx=torch.zeros(2, 3, 16)), "contexts of their own for 2 classes"),
    "another width": (lambda zero: coop(zero, ctx=torch.zeros(3, 8)), "another model than .*width 8 beside 16"),
    "another start": (
        lambda zero: coop(zero, token_prefix=torch.ones(2, 1, 16)), "its token for the start is another; build",
    ),
    "too few layers": (lambda zero: lora(EVERY["text"]), "has 2 layers, but position 'all' of .* is 5 blocks"),
    "other blocks": (lambda zero: lora(position="up"), "has 5 layers, but position 'up' of .* is 0 blocks"),
    "unknown blocks": (lambda zero: lora(position="middle"), "names blocks 'middle' of the text tower, which"),
    "layers in turn": (lambda zero: lora(EVERY["vision"] + EVERY["text"]), "q_proj changes .32, 32., but the model's"),
    "text features": (lambda zero: torch.zeros(3, 24) + 1, r"features \(3, 24\), expected \(2, 24\): one for each"),
    "code": (lambda zero: {"weights": Path("x")}, "holds more than plain tensors and is not read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_tensors_do_not_say_is_refused(zero, tmp_path, case):
    make, message = REFUSED[case]
    torch.save(make(zero), tmp_path / "tuned.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tuned(tmp_path / "tuned.pt", zero)
    assert len(str(caught.value).splitlines()) == 1


def test_caches_and_files_that_do_not_serve(zero, place, tmp_path):
    with pytest.raises(CheckpointError, match=r"tuned model '.*lora.pt' does not exist"):
        load_tuned(tmp_path / "lora.pt", zero)
    bare = write_cache(tmp_path / "bare", logits=zero.logits(), class_names=NAMES, split="test", model="x")
    with pytest.raises(ConfigError, match="holds bare logits; give one with features of the tuned model"):
        load_tuned(tmp_path / "lora.pt", bare)
    write_open_clip(tmp_path / "gelu", layers=(2, 3))
    data = DownstreamDataModule("image_folder", {"root": str(place / "photos")})
    model = load_model(f"local-dir:{tmp_path / 'gelu'}")
    gelu = build_cache(tmp_path / "cache", model, data, CacheSettings(split="test"))
    torch.save(lora(), tmp_path / "lora.pt")
    with pytest.raises(CheckpointError, match=r"OpenAI's weights with QuickGELU; .* computes GELU: build the cache"):
        load_tuned(tmp_path / "lora.pt", gelu)
