#!/usr/bin/env bash
# Pillow 13.0.0: a TIFF whose zero is white is inverted on reading if it has 8 bits and left as it is if it has 16.
#
# PhotometricInterpretation 0 ("white is zero") is what many scanners, microscopes and medical exports write. Pillow turns
# values over for 1 to 8 bits, so that 0 is black in memory as everywhere else. For 16 bits it keeps them and says so
# nowhere (mode I;16, info without a word): the same picture saved with more depth becomes its negative.
#
# Expected: "the same picture, black is 0, in both depths". Seen, a black and a white pixel:
#   8 bits: black is zero [0, 255], white is zero [0, 255]
#   16 bits: black is zero [0, 65535], white is zero [65535, 0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.2.6

"$work/venv/bin/python" - <<'PY' | tee "$work/seen"
import io
import struct

import numpy
from PIL import Image


def tiff(bits, values, photometric):
    """Returns a TIFF file of one row."""
    row = struct.pack(f"<{len(values)}{'B' if bits == 8 else 'H'}", *values)
    tags = {256: len(values), 257: 1, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: 1, 279: len(row)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + row


for bits in (8, 16):
    white = 2**bits - 1
    files = tiff(bits, (0, white), 1), tiff(bits, (white, 0), 0)
    found = [numpy.asarray(Image.open(io.BytesIO(file)))[0].tolist() for file in files]
    print(f"{bits} bits: black is zero {found[0]}, white is zero {found[1]}")
PY

diff "$work/seen" - <<'SEEN'
8 bits: black is zero [0, 255], white is zero [0, 255]
16 bits: black is zero [0, 65535], white is zero [65535, 0]
SEEN
