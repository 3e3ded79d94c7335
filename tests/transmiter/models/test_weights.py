"""Files of image-text weights run as they were trained: activation, normalisation and all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import open_clip
import pytest
import tiny_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from vimlight.errors import CheckpointError, ConfigError, UnknownNameError
from vimlight.files.weight_file import WeightFile
from vimlight.transmiter.models.image_text import load_model
from vimlight.transmiter.models.recipes import OPENAI, Recipe, recipe_for
from vimlight.transmiter.models.weights import uses_quick_gelu

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
# As published, the same without the extra entries, a dictionary with them, and one without.
KINDS = ("archive", "bare_archive", "extra", "plain")
TEXTS = ["a cat", "a dog on a mat"]
NOTHING = WeightFile(Path("weights.pt"), {})


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Lets some names of open_clip stand for tiny models."""
    names = ("ViT-B-32", "ViT-B-32-quickgelu", "ViT-L-14", "ViT-S-32", "ViT-L-14-CLIPA", "PE-Core-B-16")
    tiny_clip.shrink(tmp_path / "configs", monkeypatch, *names)
    tiny_clip.shrink(tmp_path / "more", monkeypatch, "RN50", vision="rn")


def features(model):
    """Image and text features of an open_clip model, or of one of ours."""
    images = torch.randn(3, 3, tiny_clip.SIZE, tiny_clip.SIZE, generator=torch.Generator().manual_seed(1))
    if not isinstance(model, torch.nn.Module):
        return model.encode_image(images), model.encode_text(TEXTS)
    with torch.no_grad():
        found = model.encode_image(images), model.encode_text(open_clip.tokenize(TEXTS))
    return tuple(F.normalize(x.float(), dim=1) for x in found)


@pytest.mark.parametrize(
    ("name", "kind", "tag"),
    [
        *((name, kind, None) for name in ("ViT-B-32", "ViT-S-32") for kind in KINDS[:3]),
        *((name, kind, None) for name in ("ViT-B-32-quickgelu", "RN50") for kind in ("archive", "plain")),
        *((name, "plain", "openai") for name in ("ViT-B-32", "ViT-L-14")),
    ],
)
def test_openais_weights_run_as_open_clip_runs_them(tmp_path, tiny, name, kind, tag):
    source = tiny_clip.make("rn" if name == "RN50" else "vit")
    path = tiny_clip.write(source, tmp_path / "weights.pt", kind)
    model = load_model(name, path, tag=tag)
    for expected in (source, open_clip.load_openai_model(path, device="cpu")):
        torch.testing.assert_close(features(model), features(expected))
    assert uses_quick_gelu(model.model)
    assert (model.image_input.mean, model.image_input.std) == (OPENAI.mean, OPENAI.std)
    assert all(parameter.dtype == torch.float32 for parameter in model.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_fine_tuned_openai_weights_on_top(tmp_path, tiny, kind):
    base = tiny_clip.write(tiny_clip.make(), tmp_path / "base.pt", "archive")
    tuned = tiny_clip.make(seed=1)
    path = tiny_clip.write(tuned, tmp_path / "tuned.pt", kind)
    torch.testing.assert_close(features(load_model("ViT-B-32", base, path)), features(tuned))


@pytest.mark.parametrize(("quick", "kind"), [(True, "extra"), (True, "bare_archive"), (False, "bare_archive")])
def test_fine_tuned_weights_of_another_activation_are_refused(tmp_path, tiny, quick, kind):
    base = tiny_clip.write(tiny_clip.make(), tmp_path / "base.pt", "plain")
    path = tiny_clip.write(tiny_clip.make(quick=quick), tmp_path / "tuned.pt", kind)
    tag = "laion2b_e16" if quick else "openai"
    words = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
    with pytest.raises(CheckpointError, match=r"tuned.pt wants {}, but the model .* computes {}; ".format(*words)):
        load_model("ViT-B-32", base, path, tag)


def test_a_checkpoint_without_other_weights_is_asked_like_any_file(tmp_path, tiny):
    source = tiny_clip.make(quick=False)
    path = tiny_clip.write(source, tmp_path / "tuned.pt", "plain")
    with pytest.raises(ConfigError, match=r"tuned.pt does not tell which weights of 'ViT-B-32' it holds"):
        load_model("ViT-B-32", checkpoint=path)
    model = load_model("ViT-B-32", checkpoint=path, tag="laion2b_e16")
    assert not uses_quick_gelu(model.model)
    assert model.arguments == {"name": "ViT-B-32", "pretrained": None, "checkpoint": path, "tag": "laion2b_e16"}
    torch.testing.assert_close(features(model), features(source))


def test_the_question_names_what_differs_and_the_choices():
    with pytest.raises(ConfigError) as caught:
        recipe_for("ViT-B-32", NOTHING)
    assert str(caught.value) == (
        "weights.pt does not tell which weights of 'ViT-B-32' it holds, and they want QuickGELU (openai, "
        "laion400m_e31, laion400m_e32, ... 5 in all) or GELU (laion2b_e16, laion2b_s34b_b79k, datacomp_xl_s13b_b90k, "
        "... 17 in all); set tag (model.tag) to those that it is or descends from, or name: ViT-B-32-quickgelu"
    )
    with pytest.raises(ConfigError, match=r"GELU, mean 0.5 0.5 0.5, std 0.5 0.5 0.5 \(laion2b_s32b_b82k\)"):
        recipe_for("ViT-L-14", NOTHING)
    with pytest.raises(ConfigError, match=r"resize_mode shortest \(metaclip_fullcc\) or resize_mode squash \(dfn5b\)"):
        recipe_for("ViT-H-14-quickgelu", NOTHING)


@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_name_of_open_clip_is_told_by_its_tags_or_asked_for(name):
    quick = bool(open_clip.get_model_config(name).get("quick_gelu"))
    tags = open_clip.list_pretrained_tags_by_model(name)
    wanted = {}
    for tag in tags:
        published = open_clip.get_pretrained_cfg(name, tag)
        entries = [published[key] for key in ("mean", "std", "interpolation", "resize_mode")]
        wanted[tag] = Recipe(quick or bool(published.get("quick_gelu")), *entries)
        assert recipe_for(name, NOTHING, tag) == wanted[tag]
    if len(set(wanted.values())) <= 1:
        assert recipe_for(name, NOTHING) == next(iter(wanted.values()), Recipe(quick))
    else:
        with pytest.raises(ConfigError, match=r"does not tell which weights of"):
            recipe_for(name, NOTHING)
    assert recipe_for(name, dataclasses.replace(NOTHING, openai=True)) == OPENAI


@pytest.mark.parametrize("name", ["ViT-L-14-CLIPA", "PE-Core-B-16"])
def test_a_file_has_the_preprocessing_that_all_tags_of_its_model_agree_on(tmp_path, tiny, name):
    model = load_model(name, tiny_clip.write(tiny_clip.make(quick=False), tmp_path / "weights.pt", "plain"))
    published = open_clip.get_pretrained_cfg(name, open_clip.list_pretrained_tags_by_model(name)[0])
    found = model.image_input.as_dict()
    assert found["size"] == [tiny_clip.SIZE] * 2
    for key in ("mean", "std", "interpolation", "resize_mode"):
        expected = published[key]
        assert found[key] == (list(expected) if isinstance(expected, tuple) else expected)
    assert tuple(found["mean"]) != OPENAI.mean


def test_a_configuration_beside_the_weights_tells(tmp_path, tiny):
    path = tiny_clip.write(tiny_clip.make(quick=False), tmp_path / "open_clip_model.pt", "plain")
    preprocessing = {"mean": [0.1, 0.2, 0.3], "std": [0.5] * 3, "resize_mode": "squash"}
    config = {"model_cfg": tiny_clip.config(), "preprocess_cfg": preprocessing}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    model = load_model("ViT-B-32", path)
    assert not uses_quick_gelu(model.model)
    assert (model.image_input.mean, model.image_input.resize_mode) == ((0.1, 0.2, 0.3), "squash")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"open_clip_config.json beside open_clip_model.pt cannot be read \(KeyError"):
        load_model("ViT-B-32", path)


def test_checkpoints_of_open_clips_training(tmp_path, tiny):
    source = tiny_clip.make(quick=False)
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "epoch_3.pt")
    save_file(source.state_dict(), tmp_path / "open_clip_model.safetensors")
    for file in ("epoch_3.pt", "open_clip_model.safetensors"):
        model = load_model("ViT-B-32", str(tmp_path / file), tag="laion2b_s34b_b79k")
        torch.testing.assert_close(features(model), features(source))


@pytest.mark.parametrize(
    ("name", "tag", "quick", "kind", "error", "message"),
    [
        (
            "ViT-B-32",
            "laion2b_e16",
            True,
            "extra",
            ConfigError,
            "says that it is OpenAI's, which wants QuickGELU, but tag: laion2b_e16 stands for GELU; leave the tag out",
        ),
        (
            "ViT-B-32-quickgelu",
            None,
            False,
            "bare_archive",
            ConfigError,
            "computes with GELU, but name: ViT-B-32-quickgelu stands for QuickGELU; use name: ViT-B-32",
        ),
        ("ViT-B-32", "opnai", True, "plain", UnknownNameError, "unknown tag of 'ViT-B-32' 'opnai'; did you mean 'open"),
        ("ViT-B-32", "openai", True, "plain", None, None),
    ],
)
def test_what_is_said_must_agree_with_the_file(tmp_path, tiny, name, tag, quick, kind, error, message):
    path = tiny_clip.write(tiny_clip.make(quick=quick), tmp_path / "weights.pt", kind)
    if error is None:
        assert uses_quick_gelu(load_model(name, path, tag=tag).model)
        return
    with pytest.raises(error) as caught:
        load_model(name, path, tag=tag)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ViT-B-32", "pretrained": "openai", "tag": "openai"}, "openai is a tag itself; leave out tag"),
        ({"name": "vit_scenes_small", "tag": "openai"}, "brings its own weights; leave out tag: 'openai'"),
    ],
)
def test_a_tag_that_is_of_no_use(arguments, message):
    with pytest.raises(ConfigError, match=message):
        load_model(**arguments)


def test_names_of_transformers_are_refused_by_name(tmp_path, tiny):
    weights = {"text_model.embeddings.token_embedding.weight": torch.ones(2), "logit_scale": torch.ones(())}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model.safetensors has the names of transformers' image-text models"):
        load_model("ViT-B-32-quickgelu", str(tmp_path / "model.safetensors"))


def test_another_number_of_positions_is_interpolated_with_a_warning(tmp_path, tiny):
    source = tiny_clip.make()
    state = source.state_dict()
    state["visual.positional_embedding"] = torch.randn(1 + 6 * 6, 64)
    state["positional_embedding"] = torch.randn(50, 64)
    torch.save(state, tmp_path / "larger.pt")
    with pytest.warns(UserWarning, match=r"larger.pt has 37 positions \(visual.positional_embedding\), the model 17"):
        model = load_model("ViT-B-32-quickgelu", str(tmp_path / "larger.pt"))
    with pytest.warns(UserWarning, match=r"larger.pt has 50 positions \(positional_embedding\), the model 77"):
        load_model("ViT-B-32-quickgelu", str(tmp_path / "larger.pt"))
    open_clip.load_checkpoint(source, str(tmp_path / "larger.pt"))
    torch.testing.assert_close(features(model), features(source))


@pytest.mark.parametrize("where", ["pretrained", "checkpoint"])
def test_a_file_without_the_bias_of_a_sigmoid_model_is_refused(tmp_path, tiny, where):
    config = {**tiny_clip.config(), "init_logit_bias": -10.0, "custom_text": True}
    (tmp_path / "configs" / "ViT-S-32.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    path = tiny_clip.write(tiny_clip.make(quick=False), tmp_path / "weights.pt", "plain")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing \(such as \['logit_bias'\]\), 0 are not in"):
        load_model("ViT-S-32", **{where: path})
    state = {**tiny_clip.make(quick=False).state_dict(), "logit_bias": torch.tensor(-3.0)}
    torch.save(state, tmp_path / "weights.pt")
    assert load_model("ViT-S-32", **{where: path}).bias == -3.0


def test_a_resnet_of_another_image_size_is_refused(tmp_path, tiny):
    state = tiny_clip.make("rn").state_dict()
    state["visual.attnpool.positional_embedding"] = torch.randn(5, 256)
    torch.save(state, tmp_path / "larger.pt")
    with pytest.raises(CheckpointError, match=r"'visual.attnpool.positional_embedding' is \(5, 256\), expected \(2, "):
        load_model("RN50", str(tmp_path / "larger.pt"))
