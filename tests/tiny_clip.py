"""Tiny CLIP models in the formats in which weights of CLIP are published."""

from __future__ import annotations

import copy
import json

import open_clip
import torch
from open_clip import factory
from torch import nn

SIZE = 32
EXTRA = {"input_resolution": SIZE, "context_length": 77, "vocab_size": 49408}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
_VIT = {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 8}
_RESNET = {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}


class Published(nn.Module):
    """A model with what OpenAI's archives hold beside its weights."""

    def __init__(self, model, extra=True):
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, value in EXTRA.items() if extra else ():
            self.register_buffer(name, torch.tensor(value))
        self.scratch = torch.zeros(3)  # a tensor that is neither parameter nor buffer
        self.sizes = [1, 2]

    def forward(self, images, tokens):
        return self.visual(images), self.transformer(self.token_embedding(tokens))


def config(vision="vit", quick=False):
    """The configuration of a tiny model."""
    shape = {"embed_dim": 24, "vision_cfg": _VIT if vision == "vit" else _RESNET, "text_cfg": _TEXT}
    return {**shape, "quick_gelu": True} if quick else shape


def shrink(folder, monkeypatch, *names, vision="vit"):
    """Lets names of open_clip stand for tiny models; their tags stay."""
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(config(vision, name.endswith("-quickgelu"))))
    open_clip.add_model_config(folder)


def make(vision="vit", quick=True, seed=0):
    """A model with random weights, and batch statistics that matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config(vision, quick))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    # What a file of half precision holds.
    return model.half().float().eval()


def write(model, path, kind):
    """Writes a model as an `archive`, as a `bare_archive`, as a dictionary with `extra` entries, or `plain`."""
    if kind.endswith("archive"):
        inputs = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, 77, dtype=torch.long)
        traced = torch.jit.trace(Published(copy.deepcopy(model), kind == "archive"), inputs, check_trace=False)
        traced.half().save(str(path))
        return str(path)
    extra = {name: torch.tensor(value) for name, value in EXTRA.items()} if kind == "extra" else {}
    torch.save({name: x.half() if x.is_floating_point() else x for name, x in model.state_dict().items()} | extra, path)
    return str(path)
