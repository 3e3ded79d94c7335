"""A web server on loopback that sends files, or parts of them, and breaks off where a test says so."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served:
    """What the server does, and what it was asked for.

    Attributes:
        url: Its address.
        parts: Whether it sends parts of files.
        breaks_off: After how many bytes of a module it closes the connection; never if 0.
        asked: Name and first byte of each request.
    """

    def __init__(self, url):
        self.url, self.parts, self.breaks_off, self.asked = url, True, 0, []


@contextmanager
def serving(folder):
    """Serves the files of a folder."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            file = folder / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            content, found = file.read_bytes(), re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(found[1]) if found and served.parts else 0
            served.asked.append((file.name, start))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            breaks_off = served.breaks_off and file.suffix == ".safetensors"
            self.wfile.write(content[start : served.breaks_off if breaks_off else len(content)])
            # What a client has not taken up when the connection breaks is lost to it.
            time.sleep(0.3 if breaks_off else 0)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
