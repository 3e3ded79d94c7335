"""The released model in plain tensor operations, written from its formulas: no line of the package takes part."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def norm(x, weight, bias):
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def attention(n, w, name, heads):
    """Multi-head attention on `(N, T, d)`."""
    images, tokens, width = n.shape
    joint = n @ w[f"{name}.in_proj_weight"].T + w[f"{name}.in_proj_bias"]
    q, k, v = (part.reshape(images, tokens, heads, -1).transpose(1, 2) for part in joint.split(width, dim=-1))
    shares = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5).softmax(dim=-1)
    mixed = (shares @ v).transpose(1, 2).reshape(images, tokens, width)
    return mixed @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def module(n, unit):
    """One ViM module on `(N, 1 + P * P, d)`; the class token is an image of its own."""
    u = quick_gelu(n @ unit["adapter_down.weight"].T + unit["adapter_down.bias"])
    side = round((n.shape[1] - 1) ** 0.5)
    images = (u[:, :1].transpose(1, 2).unflatten(2, (1, 1)), u[:, 1:].transpose(1, 2).unflatten(2, (side, side)))
    v = [F.conv2d(x, unit["adapter_conv.weight"], unit["adapter_conv.bias"], padding=1) for x in images]
    v = torch.cat([x.flatten(2).transpose(1, 2) for x in v], dim=1)
    return quick_gelu(v) @ unit["adapter_up.weight"].T + unit["adapter_up.bias"]


def aggregate(n, units, logits):
    """The gated sum of the modules at one place, one after the other."""
    gates = logits.exp() / logits.exp().sum()
    return sum(gate * module(n, unit) for gate, unit in zip(gates, units, strict=True))


def tower(content, images, task, heads):
    """Returns the projected class token and the maps behind every block."""
    w = content["backbone_weights"]
    patch = w["conv1.weight"].shape[-1]
    x = F.conv2d(images, w["conv1.weight"], stride=patch)
    side = x.shape[-1]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w["class_embedding"].expand(len(x), 1, -1), x], dim=1) + w["positional_embedding"]
    x = norm(x, w["ln_pre.weight"], w["ln_pre.bias"])
    maps = []
    layers = zip(content["ViM_weights"], content["ViM_agg_weights"][task], strict=True)
    for index, (zoo, gates) in enumerate(layers):
        name = f"transformer.resblocks.{index}"
        n = norm(x, w[f"{name}.ln_1.weight"], w[f"{name}.ln_1.bias"])
        x = x + attention(n, w, f"{name}.attn", heads)
        x = x + aggregate(n, zoo["vim_att_weights"], gates["vim_att_agg"])
        n = norm(x, w[f"{name}.ln_2.weight"], w[f"{name}.ln_2.bias"])
        hidden = quick_gelu(n @ w[f"{name}.mlp.c_fc.weight"].T + w[f"{name}.mlp.c_fc.bias"])
        x = x + hidden @ w[f"{name}.mlp.c_proj.weight"].T + w[f"{name}.mlp.c_proj.bias"]
        x = x + aggregate(n, zoo["vim_mlp_weights"], gates["vim_mlp_agg"])
        maps.append(x[:, 1:].transpose(1, 2).unflatten(2, (side, side)))
    return norm(x[:, 0], w["ln_post.weight"], w["ln_post.bias"]) @ w["proj"], maps


def semantic_fpn(h, maps):
    """The segmentation head on four maps of one size."""

    def conv(x, name, padding=0):
        return F.conv2d(x, h[f"{name}.weight"], h.get(f"{name}.bias"), padding=padding)

    def batch_norm(x, name):
        mean, var, weight, bias = (
            h[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def double(x, name):
        return F.conv_transpose2d(x, h[f"{name}.weight"], h[f"{name}.bias"], stride=2)

    finest = double(F.gelu(batch_norm(double(maps[0], "pre_fpn.0.0"), "pre_fpn.0.1")), "pre_fpn.0.3")
    x = [finest, double(maps[1], "pre_fpn.1"), maps[2], F.max_pool2d(maps[3], 2)]
    x = [conv(level, f"fpn_neck.lateral_convs.{k}.conv") for k, level in enumerate(x)]
    for k in (3, 2, 1):
        x[k - 1] = x[k - 1] + F.interpolate(x[k], size=x[k - 1].shape[2:], mode="nearest")
    x = [conv(level, f"fpn_neck.fpn_convs.{k}.conv", 1) for k, level in enumerate(x)]
    for k, length in enumerate((1, 1, 2, 3)):
        for step in range(length):
            name = f"fpn_head.scale_heads.{k}.{2 * step}"
            x[k] = batch_norm(conv(x[k], f"{name}.conv", 1), f"{name}.bn").clamp_min(0)
            if k:
                x[k] = F.interpolate(x[k], scale_factor=2.0, mode="bilinear", align_corners=False)
        x[k] = F.interpolate(x[k], size=finest.shape[2:], mode="bilinear", align_corners=False)
    return conv(x[0] + x[1] + x[2] + x[3], "fpn_head.conv_seg")


def logits(content, images, task, heads, levels=(3, 5, 7, 11)):
    """Returns a task's logits; `levels` are the blocks that the segmentation head reads."""
    feature, maps = tower(content, images, task, heads)
    head = content["head_weights"][task]
    if task.startswith("cls"):
        return feature @ head["classifier.weight"].T + head["classifier.bias"]
    return semantic_fpn(head, [maps[level] for level in levels])
