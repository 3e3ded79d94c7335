"""The part of the hub's HTTP API that a zoo needs, on loopback: repositories of small files, and their commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """What the hub holds.

    Attributes:
        commits: Of each repository its commits: their names, and the content of all files as of then.
        asked: Method and path of each request.
        url: Its address.
    """

    def __init__(self):
        self.commits, self.asked, self.url = {}, [], ""

    def files(self, repository):
        """Returns the files of a repository as they are now."""
        return self.commits[repository][-1][1]

    def find(self, repository, revision):
        found = self.commits.get(repository, [])
        return next((each for each in reversed(found) if revision in (each[0], "main")), None)

    def commit(self, repository, files):
        found = self.commits[repository]
        before = found[-1][1] if found else {}
        name = hashlib.sha1(f"{repository} {len(found)}".encode()).hexdigest()
        found.append((name, {**before, **files}))
        return name


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.hub.asked.append(("GET", self.path))
        if path == "/api/models":
            self._json([self._info(name) for name in self.hub.commits if "zoo" in query])
        elif found := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)(?:/revision/([\w-]+))?", path):
            self._of(found[1], found[2] or "main", lambda _: self._json(self._info(found[1], found[2] or "main")))
        elif found := re.fullmatch(r"/([\w-]+/[\w-]+)/resolve/([\w-]+)/(.+)", path):
            self._of(found[1], found[2], lambda commit: self._file(commit[1].get(found[3])))
        else:
            self._json({"error": "not found"}, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.asked.append(("POST", self.path))
        found = re.fullmatch(r"/api/models/([\w-]+/[\w-]+)/(preupload|commit)/main", self.path)
        if self.path == "/api/validate-yaml":
            self._json({"warnings": [], "errors": []})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif found and found[2] == "preupload":
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for each in json.loads(body)["files"]]  # fmt: skip
            self._json({"files": files})
        else:
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])

    def _create(self, asked):
        name = f"{asked.get('organization', 'me')}/{asked['name']}"
        status = 409 if name in self.hub.commits else 200
        if status == 200:
            self.hub.commits[name] = []
            self.hub.commit(name, {".gitattributes": b""})
        self._json({"url": f"{self.hub.url}/{name}", "name": name}, status)

    def _commit(self, name, lines):
        parent = lines[0]["value"].get("parentCommit")
        if parent and parent != self.hub.commits[name][-1][0]:
            self._json({"error": "A commit has happened since."}, 412)
            return
        files = {each["value"]["path"]: base64.b64decode(each["value"]["content"]) for each in lines[1:]}
        commit = self.hub.commit(name, files)
        self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"})

    def _of(self, repository, revision, answer):
        commit = self.hub.find(repository, revision)
        if repository not in self.hub.commits:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif commit is None:
            self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        else:
            answer(commit)

    def _info(self, name, revision="main"):
        return {"id": name, "sha": self.hub.find(name, revision)[0], "tags": ["vimlight-zoo", "license:mit", "lora"]}

    def _file(self, content):
        if content is None:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self._send(content[int(found[1]) if found else 0 :], 206 if found else 200, {})

    def _json(self, value, status=200, headers=()):
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **dict(headers)})

    def _send(self, content, status, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def hub_on_loopback():
    """Runs such a hub."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
