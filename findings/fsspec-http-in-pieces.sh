#!/usr/bin/env bash
# fsspec 2026.9.0 with aiohttp 3.14.5: a file on a web server that does not announce ranges, such as Python's own
# `http.server`, cannot be read in pieces beyond the first block of 5 MiB, though the same file comes whole in one read.
#
# `fsspec.open(url, "rb")` gives a file object whose cache fetches ranges. The first piece fits into the first block, so
# that small files and first pieces work; the piece that needs the second block ends in a ValueError. `block_size=0` asks
# for a plain stream. Whoever serves checkpoints from a folder and reads them piece by piece meets it from 5 MiB on.
#
# Expected: "12582912 bytes in pieces", as with urllib. Seen:
#   ValueError after 5242880 bytes in pieces, 12582912 at once, 12582912 in pieces with block_size=0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fsspec==2026.9.0 aiohttp==3.14.5

cat > "$work/pieces.py" <<'PY'
import functools
import http.server
import pathlib
import threading

import fsspec

pathlib.Path("a.bin").write_bytes(bytes(12 << 20))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory="."))
server.handle_error = lambda *_: None
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/a.bin"


def in_pieces(**options):
    count = 0
    try:
        with fsspec.open(url, "rb", **options) as file:
            while piece := file.read(1 << 20):
                count += len(piece)
    except ValueError as error:
        return f"{type(error).__name__} after {count} bytes in pieces"
    return f"{count} in pieces"


with fsspec.open(url, "rb") as file:
    whole = len(file.read())
print(f"{in_pieces()}, {whole} at once, {in_pieces(block_size=0)} with block_size=0")
PY
seen=$(cd "$work" && "$work/venv/bin/python" pieces.py)
echo "$seen"
[ "$seen" = "ValueError after 5242880 bytes in pieces, 12582912 at once, 12582912 in pieces with block_size=0" ]
