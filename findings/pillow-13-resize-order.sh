#!/usr/bin/env bash
# Pillow 13.0.0 resizes some images in another order than Pillow 11.3.0, so the same call gives other pixels.
#
# Image.resize works in two passes, one along each axis, and rounds to uint8 in between, where the overshoot of bicubic
# is cut off. Until Pillow 11.3.0 the horizontal pass came first, always. Pillow 13.0.0 starts with the vertical pass
# where that leaves less to compute, as for tall images. For smooth photographs the difference is a level or two; where
# edges are sharp it is more. Whoever compares features or logits that were computed with two releases, or Pillow with a
# resizing of tensors, meets it; 13.0.0's release notes do not mention it.
#
# Expected: "the horizontal pass comes first in both". Seen, noise of 301 x 98 pixels to 213 x 213:
#   11.3.0 HV 301x98->213x213 HV 98x301->213x213
#   13.0.0 VH 301x98->213x213 HV 98x301->213x213
#   pixels that differ: over 0.1 %, by up to more than 8 of 255 levels
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/order.py" <<'PY'
import sys

import numpy
import PIL
from PIL import Image

words = [PIL.__version__]
for height, width in ((301, 98), (98, 301)):
    noise = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    image = Image.fromarray(noise)

    def resized(*steps, start=image):
        for step in steps:
            start = start.resize(step, Image.Resampling.BICUBIC)
        return numpy.asarray(start)

    once = resized((213, 213))
    orders = {"HV": resized((213, height), (213, 213)), "VH": resized((width, 213), (213, 213))}
    found = [name for name, pixels in orders.items() if (pixels == once).all()]
    words += [*found, f"{height}x{width}->213x213"]
    if height > width:
        numpy.save(sys.argv[1], once)
print(*words)
PY

for version in 11.3.0 13.0.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version" numpy==2.2.6
    "$work/$version/bin/python" "$work/order.py" "$work/$version.npy" | tee -a "$work/seen"
done
"$work/13.0.0/bin/python" - "$work/11.3.0.npy" "$work/13.0.0.npy" <<'PY' | tee -a "$work/seen"
import sys

import numpy

difference = numpy.abs(numpy.subtract(*(numpy.load(name).astype(int) for name in sys.argv[1:])))
print(f"more than 0.1 % differ: {(difference > 0).mean() > 1e-3}; by more than 8 levels: {difference.max() > 8}")
PY

diff "$work/seen" - <<'SEEN'
11.3.0 HV 301x98->213x213 HV 98x301->213x213
13.0.0 VH 301x98->213x213 HV 98x301->213x213
more than 0.1 % differ: True; by more than 8 levels: True
SEEN
