from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import SIZE, write_open_clip

from vimlight.data.coop_files import DATASETS
from vimlight.data.transforms import normalise
from vimlight.embedded import load_pair_model
from vimlight.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from vimlight.transmiter.cache.images import fit_like_open_clip
from vimlight.transmiter.models.image_text import load_model
from vimlight.transmiter.models.templates import class_features, templates_of


@pytest.fixture
def name(tmp_path):
    return write_open_clip(tmp_path / "clip")


@pytest.mark.parametrize("sigmoid", [False, True])
def test_an_open_clip_model(tmp_path, sigmoid):
    name = write_open_clip(tmp_path / "model", sigmoid=sigmoid)
    model, expected = load_model(name), open_clip.create_model(name)
    images = torch.randn(3, 3, SIZE, SIZE)
    texts = ["a cat", "a dog"]
    tokens = open_clip.get_tokenizer(name)(texts)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(images), F.normalize(expected.eval().encode_image(images), dim=1))
        torch.testing.assert_close(model.encode_text(texts), F.normalize(expected.encode_text(tokens), dim=1))
    assert model.scale == pytest.approx(expected.logit_scale.exp().item())
    assert model.bias == (-10.0 if sigmoid else 0.0)
    assert not model.model.training
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_the_embedded_pair():
    model, (expected, tokenizer, _) = load_model("vit_scenes_small"), load_pair_model("vit_scenes_small")
    with torch.no_grad():
        features = F.normalize(expected.encode_text(tokenizer(["a red star"])), dim=1)
    torch.testing.assert_close(model.encode_text(["a red star"]), features)
    assert model.weights == load_model("vit_scenes_small").weights
    assert model.weights != load_model("vit_scenes_base").weights


@pytest.mark.parametrize("kind", ["open_clip", "embedded"])
def test_a_fine_tuned_checkpoint(tmp_path, name, kind):
    name = name if kind == "open_clip" else "vit_scenes_small"
    state = load_model(name).model.state_dict()
    state["logit_scale"] = torch.tensor(1.5)
    save_file(state, tmp_path / "tuned.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "tuned.pt")
    for file in ("tuned.safetensors", "tuned.pt"):
        tuned = load_model(name, checkpoint=str(tmp_path / file))
        assert tuned.scale == pytest.approx(torch.tensor(1.5).exp().item())
        assert tuned.weights != load_model(name).weights
        assert tuned.arguments == {"name": name, "pretrained": None, "checkpoint": str(tmp_path / file)}


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(50, 37), (20, 31), (SIZE, SIZE)])
def test_images_are_fitted_as_open_clip_does(tmp_path, resize_mode, size):
    model = load_model(write_open_clip(tmp_path / "model", resize_mode=resize_mode))
    rough = torch.randint(0, 256, (3, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    smooth = F.interpolate(rough[None], size[::-1], mode="bicubic")[0].clamp(0, 255).byte()
    picture = Image.fromarray(smooth.permute(1, 2, 0).numpy())
    expected = image_transform_v2(PreprocessCfg(**model.model.visual.preprocess_cfg), is_train=False)(picture)
    found = normalise(fit_like_open_clip(smooth, model.image_input).float() / 255, model.image_input)
    assert found.shape == expected.shape == (3, SIZE, SIZE)
    # Two libraries interpolate; they round to neighbouring grey values now and then.
    assert (found - expected).abs().max() < 2.5 / 255 / 0.2


def test_weights_in_half_precision_are_close(name):
    model = load_model(name)
    images = torch.randn(4, 3, SIZE, SIZE)
    whole = model.encode_image(images)
    half = model.to("cpu", "bf16").encode_image(images)
    assert half.dtype == torch.float32
    assert not torch.equal(whole, half)
    assert (F.cosine_similarity(whole, half) > 0.999).all()


@pytest.mark.parametrize(("hardware", "precision"), [(True, "bf16"), (False, "32")])
def test_the_precision_is_chosen_by_what_the_hardware_multiplies_in(monkeypatch, name, hardware, precision):
    monkeypatch.setattr("vimlight.transmiter.models.image_text.multiplies_in_bfloat16", lambda device: hardware)
    assert load_model(name).to("cpu", "auto").precision == precision


@pytest.mark.cuda
def test_a_model_on_a_gpu(name):
    model = load_model(name)
    images = torch.randn(4, 3, SIZE, SIZE)
    whole = model.encode_image(images)
    model.to("cuda", "16")
    assert (F.cosine_similarity(whole, model.encode_image(images.cuda()).cpu()) > 0.999).all()
    assert model.encode_text(["a cat"]).device.type == "cuda"


def test_templates_are_averaged_and_normalised(name):
    model, templates = load_model(name), ["a {}.", "many {}", "{} here"]
    features = class_features(model, ["red_fox", "owl"], templates, batch_size=4)
    for row, word in enumerate(("red fox", "owl")):
        each = model.encode_text([template.replace("{}", word) for template in templates])
        torch.testing.assert_close(features[row], F.normalize(each.mean(dim=0), dim=0))
    torch.testing.assert_close(class_features(model, ["red_fox", "owl"], templates, batch_size=2), features)


def test_templates_by_name():
    assert len(templates_of("openai")) == 80
    assert templates_of("simple")[0] == "itap of a {}."
    assert templates_of("a {}") == ["a {}"]
    assert templates_of(["a {}", "b {}"]) == ["a {}", "b {}"]
    with pytest.raises(UnknownNameError, match="unknown set of templates 'opanai'; did you mean 'openai'"):
        templates_of("opanai")
    with pytest.raises(ConfigError, match=r"template 'a cat' must have {} once"):
        templates_of(["a {}", "a cat"])


@pytest.mark.parametrize(("name", "dataset"), DATASETS.items())
def test_coop_has_a_prompt_for_each_of_its_data_sets(name, dataset):
    assert templates_of(f"coop/{name}") == [dataset.prompt]


def test_templates_of_a_file(tmp_path):
    file = tmp_path / "zeroshot_classification_templates.txt"
    file.write_text("a photo of a {c}.\na {} in a game\n")
    assert templates_of(str(file)) == ["a photo of a {}.", "a {} in a game"]
    with pytest.raises(DataError, match=r"templates.text.txt does not exist"):
        templates_of(str(tmp_path / "templates.text.txt"))
    with pytest.raises(UnknownNameError, match=r"set of templates 'coop/oxford_pet'; did you mean 'coop/oxford_pets'"):
        templates_of("coop/oxford_pet")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "ViT-B-61", "pretrained": "openai"}, UnknownNameError, "unknown model 'ViT-B-61'; did you mean 'ViT"),
        ({"name": "vit_scenes_smal"}, UnknownNameError, "did you mean 'vit_scenes_small'"),
        ({"name": "ViT-B-16"}, ConfigError, "model 'ViT-B-16' needs weights: pretrained: openai"),
        (
            {"name": "ViT-B-16", "pretrained": "opnai"},
            UnknownNameError,
            "unknown weights of 'ViT-B-16' 'opnai'; did you mean 'openai'",
        ),
        ({"name": "ViT-B-16", "pretrained": "lost.pt"}, CheckpointError, "pretrained 'lost.pt' does not exist"),
        ({"name": "vit_scenes_small", "pretrained": "x"}, ConfigError, "brings its own weights; leave out pretrained"),
        ({"name": "local-dir:nowhere"}, CheckpointError, "model 'local-dir:nowhere' cannot be loaded"),
        ({"name": "vit_scenes_small", "checkpoint": "x.pt"}, CheckpointError, "checkpoint 'x.pt' does not exist"),
    ],
)
def test_mistakes(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        load_model(**arguments)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_does_not_fit(tmp_path, name):
    weights = load_file(tmp_path / "clip" / "open_clip_model.safetensors")
    del weights["visual.conv1.weight"]
    save_file(weights, tmp_path / "short.safetensors")
    with pytest.raises(CheckpointError, match=r"short.safetensors does not fit CLIP: .*visual.conv1.weight"):
        load_model(name, checkpoint=str(tmp_path / "short.safetensors"))
    (tmp_path / "broken.pt").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"broken\.pt is damaged or no weight file"):
        load_model(name, checkpoint=str(tmp_path / "broken.pt"))


class Odd:
    """Something that only a pickle can hold."""


def test_a_pickle_that_could_run_code_is_not_read(tmp_path, name):
    torch.save({"state_dict": {"logit_scale": torch.ones(())}, "odd": Odd()}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"odd.pt holds more than plain tensors and is not read"):
        load_model(name, checkpoint=str(tmp_path / "odd.pt"))


def test_weights_of_another_architecture_are_needed_for_the_openai_tag(monkeypatch):
    asked = {}

    def create(name, **options):
        asked.update(options, name=name)
        raise RuntimeError("no network\nin this test")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(CheckpointError, match="model 'ViT-B-16' cannot be loaded: no network in this test"):
        load_model("ViT-B-16", "openai")
    assert asked["force_quick_gelu"] is True
    with pytest.raises(CheckpointError):
        load_model("ViT-B-16", "laion2b_s34b_b88k")
    assert asked["force_quick_gelu"] is False
