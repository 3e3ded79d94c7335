"""A headless Chromium for the tests of pages, spoken to over a pipe: nothing is installed for it, nothing listens."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "Browser", "shot"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def shot(name: str, otherwise: Path) -> Path:
    """Returns the file of a screenshot, in the folder that `VIMLIGHT_SHOTS` names; some stand in the documentation.

    Args:
        name: What it is called.
        otherwise: The folder that it lies in where none is named.
    """
    folder = Path(os.environ.get("VIMLIGHT_SHOTS", otherwise))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"


class Browser:
    """A tab.

    Args:
        home: An empty directory for the browser's profile.

    Attributes:
        said: What pages wrote to the console, and errors that nobody caught or that their policy forbade.
    """

    def __init__(self, home: Path) -> None:
        self.said: list[str] = []
        self._number = 0
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        read_theirs, self._write = os.pipe()
        self._read, write_theirs = os.pipe()
        os.set_inheritable(read_theirs, True)
        os.set_inheritable(write_theirs, True)
        # Chromium reads from 3 and writes to 4.
        shell = f'exec "$0" "$@" 3<&{read_theirs} 4>&{write_theirs}'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars",
                   "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={home}"]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", shell, CHROMIUM, *options], pass_fds=[read_theirs, write_theirs],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_theirs)
        os.close(write_theirs)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Performance.enable", timeDomain="threadTicks")

    def open(self, page: Path | str, *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
        """Opens a page.

        Args:
            page: Its file, or its address.
            dark: Whether it is shown to somebody who prefers dark pages.
            width: Of the window.
            height: Of the window.
        """
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self.resize(width, height)
        self._events.clear()
        self._call("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()

    def resize(self, width: int, height: int) -> None:
        """Gives the window another size."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, script: str) -> Any:
        """Returns the value of an expression on the page, awaited where it is a promise."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Presses a key, such as `"Enter"`, of a number."""
        text = {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self, file: Path) -> None:
        """Writes what the window shows as a PNG."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def printed(self) -> bytes:
        """Returns the page as a PDF."""
        return base64.b64decode(self._call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def seconds(self, script: str) -> float:
        """Returns how long the page's thread works on a script and what it moves, in seconds of processor time."""
        before = self._busy()
        self.run(f"{script}; new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        return self._busy() - before

    def _busy(self) -> float:
        found = self._call("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in found if metric["name"] == "TaskDuration")

    def close(self) -> None:
        """Ends the browser."""
        with contextlib.suppress(OSError):
            os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser is gone")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self._events.append(message)
            self._note(message["method"], message["params"])
        return message

    def _note(self, method: str, about: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.said.append(str(about["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.said.append(about["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(each.get("value")) for each in about["args"]))
