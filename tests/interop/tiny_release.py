"""Checkpoints of the released layout with random weights, of any sizes."""

from __future__ import annotations

import torch


def release(
    width=48, depth=3, modules=5, hidden=6, patch=8, grid=5, outputs=20, mlp=100, arch="vit_b16_224", seed=0,
    tasks=None, fpn=(10, 7),
):  # fmt: skip
    """Returns the dictionary that a `pytorch_model.pt` is; `tasks` are numbers of classes by name."""
    generator = torch.Generator().manual_seed(seed)
    tasks = {"cls-pets": 7, "seg-voc": 4} if tasks is None else tasks

    def random(*shape, spread=None):
        fan = shape[-1] if len(shape) == 2 else shape[1] * shape[2] * shape[3] if len(shape) == 4 else 16
        return torch.randn(shape, generator=generator) * (fan**-0.5 if spread is None else spread)

    def scale(size):
        return 1 + random(size, spread=0.2)

    def unit(h):
        return {
            "adapter_down.weight": random(h, width), "adapter_down.bias": random(h),
            "adapter_conv.weight": random(h, h, 3, 3), "adapter_conv.bias": random(h),
            "adapter_up.weight": random(width, h), "adapter_up.bias": random(width),
        }  # fmt: skip

    def head(task, classes):
        if task.startswith("cls"):
            return {"classifier.weight": random(classes, outputs), "classifier.bias": random(classes)}
        return semantic_fpn(classes)

    def batch_norm(name, size):
        return {
            f"{name}.weight": scale(size), f"{name}.bias": random(size), f"{name}.running_mean": random(size),
            f"{name}.running_var": random(size).square() + 0.5, f"{name}.num_batches_tracked": torch.tensor(9),
        }  # fmt: skip

    def semantic_fpn(classes):
        neck, branch = fpn
        state = {}
        for name in ("pre_fpn.0.0", "pre_fpn.0.3", "pre_fpn.1"):
            state |= {f"{name}.weight": random(width, width, 2, 2), f"{name}.bias": random(width)}
        state |= batch_norm("pre_fpn.0.1", width)
        for level, length in enumerate((1, 1, 2, 3)):
            lateral, conv = f"fpn_neck.lateral_convs.{level}.conv", f"fpn_neck.fpn_convs.{level}.conv"
            state |= {f"{lateral}.weight": random(neck, width, 1, 1), f"{lateral}.bias": random(neck)}
            state |= {f"{conv}.weight": random(neck, neck, 3, 3), f"{conv}.bias": random(neck)}
            for step in range(length):
                name = f"fpn_head.scale_heads.{level}.{2 * step}"
                state[f"{name}.conv.weight"] = random(branch, branch if step else neck, 3, 3)
                state |= batch_norm(f"{name}.bn", branch)
        state |= {
            "fpn_head.conv_seg.weight": random(classes, branch, 1, 1), "fpn_head.conv_seg.bias": random(classes)
        }  # fmt: skip
        return state

    backbone = {
        "class_embedding": random(width), "positional_embedding": random(1 + grid * grid, width),
        "proj": random(width, outputs), "conv1.weight": random(width, 3, patch, patch),
        "ln_pre.weight": scale(width), "ln_pre.bias": random(width),
        "ln_post.weight": scale(width), "ln_post.bias": random(width),
    }  # fmt: skip
    for index in range(depth):
        name = f"transformer.resblocks.{index}"
        backbone |= {
            f"{name}.attn.in_proj_weight": random(3 * width, width), f"{name}.attn.in_proj_bias": random(3 * width),
            f"{name}.attn.out_proj.weight": random(width, width), f"{name}.attn.out_proj.bias": random(width),
            f"{name}.ln_1.weight": scale(width), f"{name}.ln_1.bias": random(width),
            f"{name}.mlp.c_fc.weight": random(mlp, width), f"{name}.mlp.c_fc.bias": random(mlp),
            f"{name}.mlp.c_proj.weight": random(width, mlp), f"{name}.mlp.c_proj.bias": random(width),
            f"{name}.ln_2.weight": scale(width), f"{name}.ln_2.bias": random(width),
        }  # fmt: skip
    widths = [hidden] * modules if isinstance(hidden, int) else hidden
    return {
        "meta_info": {
            "task_list": list(tasks),
            "backbone_arch": arch,
            "ViM_agg_algo": "Ens-MoE",
            "label_map": {task: [f"class {k}" for k in range(count)] for task, count in tasks.items()},
        },
        "backbone_weights": backbone,
        "ViM_weights": [
            {key: [unit(h) for h in widths] for key in ("vim_att_weights", "vim_mlp_weights")} for _ in range(depth)
        ],
        "ViM_agg_weights": {
            task: [
                {key: random(modules, spread=1.5) for key in ("vim_att_agg", "vim_mlp_agg")} for _ in range(depth)
            ]
            for task in tasks
        },
        "head_weights": {task: head(task, count) for task, count in tasks.items()},
    }


def images(count=2, side=40, seed=1):
    """Returns random images."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def same(one, other, where=""):
    """Tells where two contents differ, bit for bit; nothing if they do not."""
    if isinstance(one, torch.Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return "" if equal else where
    if isinstance(one, dict):
        if list(one) != list(other) and set(one) != set(other):
            return f"{where}: {sorted(map(str, set(one) ^ set(other)))}"
        return next((found for key in one if (found := same(one[key], other[key], f"{where}[{key!r}]"))), "")
    if isinstance(one, list):
        if len(one) != len(other):
            return where
        return next((found for k, item in enumerate(one) if (found := same(item, other[k], f"{where}[{k}]"))), "")
    return "" if one == other else where
