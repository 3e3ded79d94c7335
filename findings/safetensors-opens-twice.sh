#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.14.1: `safe_open(path, "pt")` reads the header from one opening of the file and the tensors
# from a second one, by name. A file that is replaced in between, whole and by a rename, gives the metadata of the old one
# and the tensors of the new one, without a word.
#
# The second opening is `torch.UntypedStorage.from_file`, at the first tensor or already in `safe_open`. Whoever keeps a
# hash of the tensors in the metadata, or reads checkpoints that another process replaces atomically, meets it: the rename
# protects from half-written files, not from two whole ones. Here the replacement is put where a race would put it.
#
# Expected: "metadata and tensors of one file, as of any reader that keeps it open". Seen:
#   metadata of zeros, tensors of ones
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 torch==2.14.1 numpy

cat > "$work/twice.py" <<'PY'
import os

import torch
from safetensors import safe_open
from safetensors.torch import save_file

for name, value in (("zeros", 0.0), ("ones", 1.0)):
    save_file({"w": torch.full((3,), value)}, f"{name}.safetensors", metadata={"of": name})
os.rename("zeros.safetensors", "a.safetensors")
second_opening = torch.UntypedStorage.from_file


def replaced_meanwhile(*arguments, **options):
    os.replace("ones.safetensors", "a.safetensors")
    return second_opening(*arguments, **options)


torch.UntypedStorage.from_file = replaced_meanwhile
with safe_open("a.safetensors", "pt") as file:
    said, found = file.metadata()["of"], file.get_tensor("w").mean().item()
print(f"metadata of {said}, tensors of {'ones' if found else 'zeros'}")
PY
seen=$(cd "$work" && "$work/venv/bin/python" twice.py)
echo "$seen"
[ "$seen" = "metadata of zeros, tensors of ones" ]
