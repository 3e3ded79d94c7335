"""The application over HTTP: answers, limits, other sites, and nothing on disk."""

from __future__ import annotations

import asyncio
import io
import json
import re
import struct
import sys
import tempfile
import threading
import zlib

import pytest
from PIL import Image
from starlette.testclient import TestClient
from tiny_serving import png

from vimlight.errors import DataError
from vimlight.serving import Limits, create_app, reading

HOST = "http://127.0.0.1:8000"
PNG = {"Content-Type": "image/png"}


def client_of(served, names=("localhost",), **limits):
    return TestClient(create_app(served, Limits(**limits), names), base_url=HOST, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(served):
    return client_of(served)


def refused(response, status):
    """The one line that an error says."""
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    text = response.json()["error"]
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_an_image_is_answered(client, served):
    response = client.post("/predict", content=png(), headers=PNG)
    found = response.json()
    assert response.status_code == 200
    assert (found["width"], found["height"]) == (50, 40)
    assert found["tasks"] == json.loads(json.dumps(served.answers(Image.open(io.BytesIO(png())))))
    asked = client.post("/predict?files=1", content=png(), headers=PNG).json()
    assert "file" in asked["tasks"]["segmentation"]


@pytest.mark.parametrize(("kind", "format"), reading.KINDS.items())
def test_every_kind_of_file_is_taken(client, kind, format):
    response = client.post("/predict", content=png(format=format), headers={"Content-Type": kind})
    assert response.status_code == 200


def test_photographs_are_turned_upright(client):
    exif = Image.Exif()
    exif[274] = 6
    content = png(format="JPEG", exif=exif)
    found = client.post("/predict", content=content, headers={"Content-Type": "image/jpeg"}).json()
    assert (found["width"], found["height"]) == (40, 50)


def test_health_says_what_is_served(client, served):
    found = client.get("/health").json()
    assert found["status"] == "ok"
    assert {name: task["kind"] for name, task in found["tasks"].items()} == {name: name for name in served.tasks}
    assert found["tasks"]["classification"]["modules"] == ["letters", "shapes"]


def bomb(width, height):
    """A PNG that says it is large and holds a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


MISTAKES = {
    "no image": (b"hello", "image/png", 422, "no image that can be read"),
    "damaged": (png()[:-2000], "image/png", 422, "damaged"),
    "empty": (b"", "image/png", 400, "the body is empty"),
    "a form": (b"--x", "multipart/form-data; boundary=x", 415, "send the image itself"),
    "no type": (png(), "", 415, "content type '' is none of: image/bmp, "),
    "a strange type": (png(), "text/\x1b[31m", 415, r"'text/ \[31m' is none"),
    "vectors": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png", 422, "no image"),
    "too many pixels": (png(1100, 1000), "image/png", 413, "1100 x 1000 pixels, more than 1 million"),
    "a bomb": (bomb(9000, 9000), "image/png", 413, "9000 x 9000 pixels, more than 1 million"),
    "a great bomb": (bomb(60000, 60000), "image/png", 413, "more than 1 million pixels"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_mistakes_are_one_line(served, name):
    content, kind, status, text = MISTAKES[name]
    response = client_of(served, megapixels=1).post("/predict", content=content, headers={"Content-Type": kind})
    assert re.search(text, refused(response, status))


def asked(app, receive, *headers):
    """Status and error of what a client is answered that sends as it likes."""
    said = []
    scope = {
        "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"image/png"), *headers], "scheme": "http",
        "http_version": "1.1",
    }  # fmt: skip

    async def send(message):
        said.append(message)

    asyncio.run(app(scope, receive, send))
    return said[0]["status"], json.loads(said[1]["body"])["error"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"100000")], [(b"content-length", b"-1")]])
def test_large_files_are_refused_before_they_are_read(served, headers):
    sent = []

    async def receive():
        sent.append(1)
        return {"type": "http.request", "body": bytes(1000), "more_body": len(sent) < 100}

    found = asked(create_app(served, Limits(megabytes=0.01)), receive, *headers)
    assert found == (413, "the image is larger than 0.01 MB")
    assert len(sent) == (0 if (b"content-length", b"100000") in headers else 11)


def test_who_sends_too_slowly_or_leaves_is_left(served, monkeypatch):
    monkeypatch.setattr(reading, "_SECONDS", 0.05)
    app = create_app(served)

    async def wait():
        await asyncio.sleep(5)

    async def leave():
        return {"type": "http.disconnect"}

    assert asked(app, wait) == (408, "the image did not come within 0.05 seconds")
    assert asked(app, leave) == (400, "the image was cut off")


@pytest.mark.parametrize("asked", [("GET", "/predict", 405), ("GET", "/etc/passwd", 404), ("POST", "/", 405)])
def test_other_addresses(client, asked):
    method, path, status = asked
    assert refused(client.request(method, path), status).startswith(f"{method} {path}: ")


HOSTS = {
    "127.0.0.1:8000": 200, "localhost:8000": 200, "LOCALHOST": 200, "[::1]:8000": 200, "192.168.1.7": 200,
    "lab.local": 200,
    "elsewhere.example": 421, "127.0.0.1.elsewhere.example": 421, "localhost.elsewhere.example:8000": 421,
    "": 421, "[": 421,
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_other_names_of_this_machine_are_refused(served, host):
    response = client_of(served, ["localhost", "lab.local"]).get("/health", headers={"Host": host})
    assert response.status_code == HOSTS[host]
    if HOSTS[host] != 200:
        refused(response, 421)


ORIGINS = {None: 200, HOST: 200, "http://elsewhere.example": 403, "http://127.0.0.1:8001": 403, "null": 403}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_pages_of_other_sites_are_refused(client, origin, method):
    headers = {} if origin is None else {"Origin": origin}
    response = client.request(method, "/health", headers=headers)
    if ORIGINS[origin] == 403:
        assert refused(response, 403) == "pages of other sites may not ask this server"
    else:
        assert response.status_code == (200 if method == "GET" else 405)
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", ["/", "/health", "/predict", "/nothing"])
def test_every_answer_allows_as_little_as_it_can(client, path):
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"


class Slow:
    """Stands for tasks that take as long as they are told to."""

    def __init__(self, served):
        self.tasks, self.backbone, self.passes = served.tasks, served.backbone, served.passes
        self.go, self.running, self.most = threading.Event(), 0, 0

    def answers(self, image, *, files=False):
        self.running += 1
        self.most = max(self.most, self.running)
        self.go.wait(10)
        self.running -= 1
        return {}


def test_one_is_computed_at_a_time_and_few_wait(served):
    slow = Slow(served)
    with client_of(slow, waiting=3) as client:
        answers = []
        ask = lambda: answers.append(client.post("/predict", content=png(), headers=PNG))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        while sum(answer.status_code == 503 for answer in answers) < 3:
            threading.Event().wait(0.01)
        slow.go.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 3
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert refused(busy, 503) == "3 images are being answered; try again"
        assert busy.headers["retry-after"] == "1"
        assert slow.most == 1
        assert client.post("/predict", content=png(), headers=PNG).status_code == 200


@pytest.mark.parametrize(("error", "status", "text"), [
    (DataError("it is\nodd"), 422, "it is odd"),
    (ZeroDivisionError("secret"), 500, "the image could not be answered; the server's log says why"),
])  # fmt: skip
def test_what_goes_wrong_inside_is_one_line(served, error, status, text):
    slow = Slow(served)

    def answers(image, *, files=False):
        raise error

    slow.answers = answers
    client = client_of(slow)
    assert refused(client.post("/predict", content=png(), headers=PNG), status) == text
    # The place is free again.
    assert client.get("/health").status_code == 200


def test_nothing_of_a_request_reaches_the_disk(client, tmp_path, monkeypatch):
    """Large enough that a parser of forms would keep it in a file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    content = png(800, 600)
    assert len(content) > 1_400_000
    written, watching = [], [True]
    others = ("tempfile.", "os.mkdir", "os.rename", "shutil.", "subprocess.", "os.system")

    def watch(event, args):
        writes = event == "open" and (set(str(args[1])) & set("wax+") or (args[2] or 0) & 3)
        if watching[0] and (writes or event.startswith(others)):
            written.append((event, args))

    sys.addaudithook(watch)
    try:
        for body, kind in [(content, "image/png"), (content, "multipart/form-data; boundary=x"), (b"no", "image/png")]:
            client.post("/predict?files=1", content=body, headers={"Content-Type": kind})
    finally:
        watching[0] = False
    assert written == []
    assert list(tmp_path.iterdir()) == []
