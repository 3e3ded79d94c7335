#!/usr/bin/env bash
# datasets 5.2.0: a folder per class, one of them called "train": the other classes vanish, and the labels with them.
#
# `load_dataset("imagefolder", data_dir=...)` reads folders as classes, unless one of them looks like a split: "train",
# "dev", "evaluation" and others count, and so does a name that only begins or ends so, such as "test_tube". Then just the
# images below it are read, as that split, without labels; what lies in the other folders is left out. Vehicles have a
# class "train", laboratory ware has "test tube". No error, no warning: a training on such a folder sees a smaller data set.
#
# Expected: 9 images of 3 classes each time. Seen:
#   bus car tram: train of 9, 3 classes; bus car train: train of 3, no labels; beaker flask test_tube: test of 3, no labels
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==12.0.0

cat > "$work/classes.py" <<'PY'
import pathlib

import datasets
from PIL import Image

datasets.disable_progress_bars()


def read(*classes):
    """Reads three folders of three images each."""
    root = pathlib.Path("-".join(classes))
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
    found = datasets.load_dataset("imagefolder", data_dir=str(root))
    labels = {split: part.features.get("label") for split, part in found.items()}
    shown = (
        f"{split} of {len(part)}, {f'{labels[split].num_classes} classes' if labels[split] else 'no labels'}"
        for split, part in found.items()
    )
    return f"{' '.join(classes)}: {', '.join(shown)}"


print("; ".join([read("bus", "car", "tram"), read("bus", "car", "train"), read("beaker", "flask", "test_tube")]))
PY
seen=$(cd "$work" && HF_HUB_OFFLINE=1 HF_HOME="$work/hf" "$work/venv/bin/python" classes.py 2> "$work/messages")
echo "$seen"
[ "$seen" = "bus car tram: train of 9, 3 classes; bus car train: train of 3, no labels; beaker flask test_tube: test of 3, no labels" ]
# Nothing is said of it either.
[ ! -s "$work/messages" ]
