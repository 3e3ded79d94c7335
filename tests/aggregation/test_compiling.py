"""`torch.compile` of an aggregated zoo: the same numbers, and nothing is compiled anew for other gates or modules."""

from __future__ import annotations

import pytest
import torch
from numerics import shaken
from torch._dynamo.testing import CompileCounter

from vimlight.aggregation import aggregate
from vimlight.backbone import create_backbone
from vimlight.plugins import create_plugin

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return create_backbone("vit_tiny_patch16_224", **VIT)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def zoo(backbone, kind, count=3):
    return [shaken(create_plugin(kind, backbone)) for _ in range(count)]


@pytest.mark.parametrize(("how", "readout"), [("ens_moe", "last"), ("router", "grid"), ("uniform", "last")])
@torch.no_grad()
def test_other_gates_and_modules_compile_nothing_anew(backbone, how, readout):
    model = aggregate(backbone, zoo(backbone, "convpass"), how, readout=readout).eval()
    counter, images = CompileCounter(), torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, backend=counter)
    torch.testing.assert_close(compiled(images), model(images))
    first = counter.frame_count
    assert first > 0
    for tensor in [*model.gating.parameters(), *model.wides.buffers()]:
        tensor.normal_(std=0.1)
        torch.testing.assert_close(compiled(images), model(images))
    assert counter.frame_count == first


@torch.no_grad()
def test_another_zoo_of_the_same_size_compiles_nothing_anew(backbone):
    counter, images = CompileCounter(), torch.randn(2, 3, 32, 32)
    models = [aggregate(backbone, zoo(backbone, "convpass")).eval() for _ in range(3)]
    counts = []
    for model in models:
        torch.testing.assert_close(torch.compile(model, backend=counter)(images), model(images))
        counts.append(counter.frame_count)
    assert counts[0] == counts[1] == counts[2]


def test_a_compiled_step_of_the_gates_has_the_plain_step_s_gradients(backbone):
    model = aggregate(backbone, zoo(backbone, "convpass"))
    images, counter = torch.randn(2, 3, 32, 32), CompileCounter()
    compiled = torch.compile(model, backend=counter)
    counts = []
    for _ in range(3):
        found, expected = (
            torch.autograd.grad(forward(images).square().sum(), model.gating.logits) for forward in (compiled, model)
        )
        torch.testing.assert_close(found, expected)
        counts.append(counter.frame_count)
        with torch.no_grad():
            model.gating.logits.normal_()
    assert counts[0] == counts[2]
