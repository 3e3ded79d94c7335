#!/usr/bin/env bash
# Pillow 13.0.0: an uncompressed TIFF that its orientation tag turns by a quarter is scrambled when it is opened from a
# path, and right when it is opened from a stream. Pillow 10.4.0 is right both ways.
#
# Pixels of some modes (grey, palette, 16-bit grey, RGBA, CMYK; not RGB) are mapped into memory instead of read, which
# only files on disk can be. Since Pillow turns TIFFs by themselves on loading, size is the turned one from the start, and
# the mapping uses it for the rows of the stored pixels. Scanners write such files. Hugging Face's datasets opens local
# images by path as well.
#
# Expected: "the same pixels from a path and from a stream, turned upright". Seen, 3 x 2 pixels 0..5 stored turned:
#   10.4.0 path [[0, 1], [2, 3], [4, 5]] stream [[0, 1], [2, 3], [4, 5]]
#   13.0.0 path [[2, 5, 1], [4, 0, 3]]   stream [[0, 1], [2, 3], [4, 5]]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/turned.py" <<'PY'
import io
import pathlib
import sys

import numpy
import PIL
from PIL import Image, ImageOps

file = pathlib.Path(sys.argv[1])
upright = numpy.arange(6, dtype=numpy.uint8).reshape(3, 2)
exif = Image.Exif()
exif[0x0112] = 6  # to be turned clockwise
Image.fromarray(numpy.ascontiguousarray(numpy.rot90(upright))).save(file, exif=exif)


def pixels(image):
    return numpy.asarray(ImageOps.exif_transpose(image)).tolist()


print(PIL.__version__, "path", pixels(Image.open(file)), "stream", pixels(Image.open(io.BytesIO(file.read_bytes()))))
PY
for version in 10.4.0 13.0.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version" numpy==2.2.6
    "$work/$version/bin/python" "$work/turned.py" "$work/turned.tif" | tee -a "$work/seen"
done

diff "$work/seen" - <<'SEEN'
10.4.0 path [[0, 1], [2, 3], [4, 5]] stream [[0, 1], [2, 3], [4, 5]]
13.0.0 path [[2, 5, 1], [4, 0, 3]] stream [[0, 1], [2, 3], [4, 5]]
SEEN
