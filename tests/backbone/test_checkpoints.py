"""Where a backbone's weights may come from, and what is refused."""

from __future__ import annotations

import os

import open_clip
import pytest
import timm
import tiny_clip
import torch
from safetensors.torch import save_file

from vimlight.backbone import create_backbone
from vimlight.backbone.weights import check_tag
from vimlight.errors import BackboneError

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
NAME = "vit_tiny_patch16_224"


class Malicious:
    """Runs a command when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def state():
    """The weights of a model with a classifier of 5 classes."""
    torch.manual_seed(3)
    return timm.create_model(NAME, num_classes=5, **TINY).state_dict()


def holds(backbone, state):
    own = backbone.model.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in own.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_a_file_with_a_classifier_left_over(tmp_path, state, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert holds(create_backbone(NAME, checkpoint=str(path), **TINY), state)


def test_the_home_directory_is_understood(tmp_path, state, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(state, tmp_path / "weights.safetensors")
    assert holds(create_backbone(NAME, checkpoint="~/weights.safetensors", **TINY), state)


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_the_usual_wrappings_of_a_training_checkpoint(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "weights.pth")
    assert holds(create_backbone(NAME, checkpoint=str(tmp_path / "weights.pth"), **TINY), state)


def test_published_formats_go_through_timms_own_converter(tmp_path):
    """A CLIP image tower as OpenAI names its tensors."""
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    target = create_backbone("vit_base_patch16_clip_224", **arguments).model.state_dict()
    generator = torch.Generator().manual_seed(0)
    names = {"norm_pre": "ln_pre", "norm": "ln_post"}
    block = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "attn.proj": "attn.out_proj",
    }
    names |= {f"blocks.0.{ours}": f"transformer.resblocks.0.{theirs}" for ours, theirs in block.items()}
    published, expected = {}, {}
    for name, tensor in target.items():
        module, _, kind = name.rpartition(".")
        expected[name] = torch.randn(tensor.shape, generator=generator)
        published[f"visual.{names.get(module, module)}.{kind}"] = expected[name]
    for kind in ("weight", "bias"):
        published[f"visual.transformer.resblocks.0.attn.in_proj_{kind}"] = published.pop(
            f"visual.blocks.0.attn.qkv.{kind}"
        )
    published["visual.class_embedding"] = published.pop("visual..cls_token").flatten()
    published["visual.positional_embedding"] = published.pop("visual..pos_embed")[0]
    published["visual.conv1.weight"] = published.pop("visual.patch_embed.proj.weight")
    save_file({name: tensor.contiguous() for name, tensor in published.items()}, tmp_path / "clip.safetensors")
    path = str(tmp_path / "clip.safetensors")
    assert holds(create_backbone("vit_base_patch16_clip_224.laion2b", checkpoint=path, **arguments), expected)
    assert holds(create_backbone("vit_base_patch16_clip_quickgelu_224", checkpoint=path, **arguments), expected)
    message = r"clip.safetensors does not say whether .* want QuickGELU, .* or GELU; name .* '\w+quickgelu_224'"
    with pytest.raises(BackboneError, match=message):
        create_backbone("vit_base_patch16_clip_224", checkpoint=path, **arguments)


CLIP = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1}


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["archive", "bare_archive", "extra", "plain"])
def test_the_image_tower_of_openais_weights_gives_the_features_of_open_clip(tmp_path, kind):
    source = tiny_clip.make()
    path = tiny_clip.write(source, tmp_path / "weights.pt", kind)
    backbone = create_backbone("vit_base_patch32_clip_quickgelu_224", checkpoint=path, num_classes=24, **CLIP)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), source.visual(images))
    assert backbone.preprocessing.mean == open_clip.OPENAI_DATASET_MEAN


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("name", "kind", "quick", "other"),
    [
        ("vit_base_patch32_clip_224", "archive", True, "vit_base_patch32_clip_quickgelu_224"),
        ("vit_base_patch32_clip_224", "extra", True, "vit_base_patch32_clip_quickgelu_224"),
        ("vit_base_patch32_clip_224.openai", "extra", True, None),
        ("vit_base_patch32_clip_quickgelu_224", "bare_archive", False, "vit_base_patch32_clip_224"),
        ("vit_base_patch32_clip_224", "bare_archive", False, None),
    ],
)
def test_clip_weights_that_want_another_activation_are_refused(tmp_path, name, kind, quick, other):
    path = tiny_clip.write(tiny_clip.make(quick=quick), tmp_path / "weights.pt", kind)
    if other is None:
        create_backbone(name, checkpoint=path, num_classes=24, **CLIP)
        return
    with pytest.raises(BackboneError, match=rf"weights.pt holds weights that want .*; the backbone .* is '{other}'"):
        create_backbone(name, checkpoint=path, num_classes=24, **CLIP)


def ambiguous():
    """The names of models whose tags normalise images differently."""
    looks = {}
    for tagged in timm.list_pretrained():
        config = timm.get_pretrained_cfg(tagged)
        looks.setdefault(tagged.partition(".")[0], set()).add((config.mean, config.std))
    return sorted(name for name, found in looks.items() if len(found) > 1)


@pytest.mark.parametrize("name", ambiguous())
def test_a_file_for_a_name_whose_tags_normalise_differently_is_asked_about(name):
    message = rf"a file does not say which; name the tag .*'{name}\.\w+' \(mean 0"
    with pytest.raises(BackboneError, match=message) as caught:
        create_backbone(name, checkpoint="none.pt")
    check_tag(str(caught.value).split("'")[-2])


def test_a_file_for_an_ambiguous_name_is_read_where_the_rest_says_how_images_are_normalised():
    for arguments in ({"name": "resnet18d.ra2_in1k"}, {"name": "resnet18d", "pretrained_cfg_overlay": {"crop_pct": 1}}):
        with pytest.raises(BackboneError, match=r"'none\.pt' does not exist"), torch.device("meta"):
            create_backbone(checkpoint="none.pt", **arguments)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that is nothing but a folder for weights."""
    folder = tmp_path / "site" / "shipped_weights" / "files"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('a package of weights is not imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_the_weight_file_of_an_installed_package_by_order(package, state):
    renamed = {f"{index:03}": tensor for index, tensor in enumerate(state.values())}
    torch.save(renamed, package / "model.pth")
    assert holds(create_backbone(NAME, checkpoint="package:shipped_weights", **TINY), state)


def test_a_package_by_names(package, state):
    save_file(state, package / "model.safetensors")
    assert holds(create_backbone(NAME, checkpoint="package:shipped_weights", **TINY), state)


def test_tensors_in_another_order_are_refused(package, state):
    torch.save({f"{index:03}": tensor for index, tensor in enumerate(reversed(state.values()))}, package / "model.pth")
    with pytest.raises(BackboneError, match=r"model\.pth does not fit VisionTransformer"):
        create_backbone(NAME, checkpoint="package:shipped_weights", **TINY)


def test_a_package_that_is_missing_or_unclear_is_named(package, state):
    with pytest.raises(BackboneError, match="'package:shiped_weights': no package of that name is installed"):
        create_backbone(NAME, checkpoint="package:shiped_weights", **TINY)
    with pytest.raises(BackboneError, match=r"expected one weight file, found \[\]"):
        create_backbone(NAME, checkpoint="package:shipped_weights", **TINY)
    for name in ("a.pt", "b.pt"):
        torch.save(state, package / name)
    with pytest.raises(BackboneError, match=r"expected one weight file, found \['a.pt', 'b.pt'\]"):
        create_backbone(NAME, checkpoint="package:shipped_weights", **TINY)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, state):
    for name in ("evil.pt", "evil.pth"):
        torch.save(state | {"x": Malicious(tmp_path / "was here")}, tmp_path / name)
        with pytest.raises(BackboneError, match=r"holds more than plain tensors and is not read"):
            create_backbone(NAME, checkpoint=str(tmp_path / name), **TINY)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0, 3, 200, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, state, suffix, keep):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(BackboneError, match=rf"weights\{suffix}") as caught:
        create_backbone(NAME, checkpoint=str(path), **TINY)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_something_else_under_that_name_is_refused(tmp_path, suffix):
    (tmp_path / f"weights{suffix}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BackboneError, match=rf"weights\{suffix}"):
        create_backbone(NAME, checkpoint=str(tmp_path / f"weights{suffix}"), **TINY)


def test_a_missing_file_is_answered_with_the_nearest(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(BackboneError, match=r"does not exist; did you mean 'weights.safetensors'\?"):
        create_backbone(NAME, checkpoint=str(tmp_path / "weigths.safetensors"), **TINY)
    with pytest.raises(BackboneError, match="does not exist"):
        create_backbone(NAME, checkpoint=str(tmp_path / "nowhere" / "weights.safetensors"), **TINY)
    with pytest.raises(BackboneError, match="is a directory, not a file"):
        create_backbone(NAME, checkpoint=str(tmp_path), **TINY)


def test_shapes_and_names_that_do_not_fit_are_refused(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    for changes in ({"embed_dim": 64}, {"depth": 3}, {"depth": 1}):
        with pytest.raises(BackboneError, match=r"weights.safetensors does not fit VisionTransformer: (\d+ tensors|')"):
            create_backbone(NAME, checkpoint=str(tmp_path / "weights.safetensors"), **(TINY | changes))


def test_a_file_that_lacks_one_tensor_is_refused_and_it_is_named(tmp_path, state):
    rest = {name: tensor for name, tensor in state.items() if name != "blocks.1.mlp.fc2.bias"}
    save_file(rest, tmp_path / "weights.safetensors")
    with pytest.raises(BackboneError, match=r"1 tensors are missing \(such as \['blocks.1.mlp.fc2.bias'\]\)"):
        create_backbone(NAME, checkpoint=str(tmp_path / "weights.safetensors"), **TINY)


def test_a_tensor_of_another_shape_is_named(tmp_path, state):
    save_file(state | {"norm.bias": torch.zeros(7)}, tmp_path / "weights.safetensors")
    with pytest.raises(BackboneError, match=r"'norm\.bias' is \(7,\), expected \(32,\)"):
        create_backbone(NAME, checkpoint=str(tmp_path / "weights.safetensors"), **TINY)


def test_two_sources_at_once_are_refused(tmp_path):
    with pytest.raises(BackboneError, match="either pretrained=True or checkpoint"):
        create_backbone(NAME, pretrained=True, checkpoint="x.safetensors")
