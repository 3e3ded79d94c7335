#!/usr/bin/env bash
# open_clip_torch 3.3.0: load_checkpoint(..., strict=True) takes checkpoints that differ from the model, and makes up the
# rest.
#
# Before the strict comparison it resizes positional embeddings of images and texts to the model's (a line of logging at
# level INFO), and gives a model with a logit bias, such as SigLIP's, a bias of zero where the checkpoint has none. So a
# "strict" load of weights for another resolution or context length goes through, and a sigmoid model whose bias was
# learnt (about -10 to -16) answers with a probability of one half and more for everything.
#
# Expected: "strict=True raises where keys or shapes differ". Seen:
#   without its bias: loaded, bias 0.0 instead of -10.0
#   images of 32 pixels into a model of 64: loaded
#   texts of 16 tokens into a model of 8: loaded
#   one layer fewer: refused
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0 'numpy<2.4'

cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY' | tee "$work/seen"
import open_clip
import torch


def model(size=32, tokens=16, layers=1):
    vision = {"image_size": size, "patch_size": 16, "width": 32, "layers": layers, "head_width": 16}
    text = {"context_length": tokens, "vocab_size": 100, "width": 32, "heads": 2, "layers": layers}
    return open_clip.model.CustomTextCLIP(24, vision, text, init_logit_bias=-10.0)


def load(what, state, into):
    torch.save(state, "weights.pt")
    try:
        open_clip.load_checkpoint(into, "weights.pt", strict=True)
    except RuntimeError:
        return print(f"{what}: refused")
    bias = float(into.logit_bias)
    print(f"{what}: loaded" + ("" if bias == -10.0 else f", bias {bias} instead of -10.0"))


whole = model().state_dict()
load("without its bias", {key: value for key, value in whole.items() if key != "logit_bias"}, model())
load("images of 32 pixels into a model of 64", whole, model(size=64))
load("texts of 16 tokens into a model of 8", whole, model(tokens=8))
load("one layer fewer", whole, model(layers=2))
PY

diff "$work/seen" - <<'SEEN'
without its bias: loaded, bias 0.0 instead of -10.0
images of 32 pixels into a model of 64: loaded
texts of 16 tokens into a model of 8: loaded
one layer fewer: refused
SEEN
