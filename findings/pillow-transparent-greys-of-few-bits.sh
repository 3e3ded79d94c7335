#!/usr/bin/env bash
# Pillow 13.0.0: the transparent grey of a PNG of 2 or 4 bits becomes opaque; with 8 bits it is transparent.
#
# A grey PNG may name one grey as transparent (tRNS), in the file's own depth. Pillow stretches pixels of 2 and 4 bits to 0
# to 255 but keeps the named grey as it stands, so that `convert("RGBA")` and everything that pastes images with their
# transparency compares 1 with 17 or 85 and never finds it. Masks and scans that were packed by an optimiser lose their
# transparent background when it happens to shrink the depth, which is meant to be lossless.
#
# Expected: alpha 255 0 255 255 for the pixels 0 1 2 3 with 1 transparent, at every depth. Seen:
#   8 bits: 255 0 255 255; 4 bits: 255 255 255 255; 2 bits: 255 255 255 255
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0

cat > "$work/greys.py" <<'PY'
import io
import struct
import zlib

from PIL import Image


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(bits, row):
    """One row of four greys, of which grey 1 is transparent."""
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"tRNS", struct.pack(">H", 1)), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def alpha(bits, row):
    image = Image.open(io.BytesIO(png(bits, row))).convert("RGBA")
    return " ".join(str(image.getpixel((x, 0))[3]) for x in range(4))


rows = {8: bytes([0, 1, 2, 3]), 4: bytes([0x01, 0x23]), 2: bytes([0b00011011])}
print("; ".join(f"{bits} bits: {alpha(bits, row)}" for bits, row in rows.items()))
PY
seen=$("$work/venv/bin/python" "$work/greys.py")
echo "$seen"
[ "$seen" = "8 bits: 255 0 255 255; 4 bits: 255 255 255 255; 2 bits: 255 255 255 255" ]
