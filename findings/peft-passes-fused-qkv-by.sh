#!/usr/bin/env bash
# peft 0.21.2 on timm 1.0.31: LoRA on `qkv` of BEiT, EVA, EVA-02 and Swin V2 never has an effect, in training or after it,
# until it is merged; then it has one.
#
# The attention of these models has a bias for queries and values alone, so it adds the three parts itself and calls
# F.linear(x, self.qkv.weight): the layer that peft wrapped hands out its weight and is never called. get_peft_model
# counts the parameters as trainable and says nothing; their gradients stay away, which shows only where qkv is the one
# target. merge_and_unload then writes the adapter into the weight, which the attention does read: an adapter that came
# from elsewhere does nothing before merging and something after.
#
# Expected: "the same effect with all timm transformers whose attention has a layer called qkv". Seen, random adapters:
#   vit:    effect True, gradient True, merged as before True
#   beit:   effect False, gradient False, merged as before False     (eva, swinv2 likewise)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 timm==1.0.31 peft==0.21.2 'numpy<2.4'

"$work/venv/bin/python" -W ignore - <<'PY' | tee "$work/seen"
import timm
import torch
from peft import LoraConfig, get_peft_model

small = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 0}
models = {
    "vit": ("vit_tiny_patch16_224", small),
    "beit": ("beit_base_patch16_224", small),
    "eva": ("eva_giant_patch14_224", {**small, "img_size": 28}),
    "swinv2": (
        "swinv2_tiny_window8_256",
        {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "num_classes": 0},
    ),
}
for name, (architecture, arguments) in models.items():
    torch.manual_seed(0)
    model = timm.create_model(architecture, **arguments).eval()
    for parameter in model.parameters():  # a new Swin V2 starts with branches of weight 0
        torch.nn.init.normal_(parameter, std=0.2)
    images = torch.randn(2, 3, arguments["img_size"], arguments["img_size"])
    with torch.no_grad():
        before = model(images)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["qkv"], init_lora_weights=False)).eval()
    answer = adapted(images)
    # With no other target, nothing that the answer depends on is trainable.
    if answer.requires_grad:
        answer.square().sum().backward()
    moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.parameters())
    merged = adapted.merge_and_unload()
    with torch.no_grad():
        same = torch.allclose(merged(images), answer, atol=1e-4)
    print(f"{name}: effect {not torch.allclose(before, answer, atol=1e-4)}, gradient {moved}, merged as before {same}")
PY

diff "$work/seen" - <<'SEEN'
vit: effect True, gradient True, merged as before True
beit: effect False, gradient False, merged as before False
eva: effect False, gradient False, merged as before False
swinv2: effect False, gradient False, merged as before False
SEEN
