#!/usr/bin/env bash
# timm 1.0.31 and torchvision 0.29.1: a folder of images has other class numbers in one than in the other.
#
# Both take the names of the sub-folders for classes and number them in order. torchvision sorts by characters, so that
# `class_10` comes before `class_2` and capitals before small letters; timm sorts naturally, numbers by their value and
# capitals like small letters. A head trained with timm's `create_dataset` names wrong classes where labels come from
# torchvision's `ImageFolder`, and no number of classes or file says so. ImageNet's own folders, eight digits
# each, are in the same order in both.
#
# Expected: "the same numbers, as both sort". Seen, the sub-folders b, class_1, class_2, class_10, Class_3:
#   torchvision Class_3 b class_1 class_10 class_2; timm b class_1 class_2 Class_3 class_10
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31

"$work/venv/bin/python" - "$work/images" <<'PY' | tee "$work/seen"
import sys
from pathlib import Path

from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder

root = Path(sys.argv[1])
for name in ("b", "class_1", "class_2", "class_10", "Class_3"):
    (root / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / name / "image.png")

numbers = {"torchvision": ImageFolder(root).class_to_idx, "timm": create_dataset("", root=root).reader.class_to_idx}
for library, of in numbers.items():
    print(f"{library}: {' '.join(sorted(of, key=of.get))}")
PY

diff "$work/seen" - <<'SEEN'
torchvision: Class_3 b class_1 class_10 class_2
timm: b class_1 class_2 Class_3 class_10
SEEN
