"""Processes forked from the one that runs the tests: all that they need is imported, which takes others ten seconds."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only


class Forked:
    """A process that calls a function, with what is used here of `subprocess.Popen`.

    It ends as a script would: with code 1 after an error, whose traceback it prints, and with that of `SystemExit`.
    What it says goes to `said` in its folder, and only if it has one.
    """

    def __init__(self, function, *, environment, folder=None, own_group=False):
        self.returncode = None
        self.said = None if folder is None else Path(folder) / f"said{os.getpid()}.{time.monotonic_ns()}"
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._settle(environment, folder, own_group)
                code = _code_of(function)
                sys.stdout.flush()
            finally:
                os._exit(code)

    def _settle(self, environment, folder, own_group):
        if own_group:
            os.setsid()
        if folder is not None:
            os.chdir(folder)
            said = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            # Those of pytest keep what is printed to themselves.
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        given = dict(environment)
        os.environ.clear()
        os.environ.update(given)
        # As it would find upon its import.
        rank_zero_only.rank = int(given.get("LOCAL_RANK", "0"))

    def poll(self):
        """Returns the code with which it ended, or less than 0, the signal that killed it; none if it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds):
        """Waits for its end, and ends it after some seconds."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()
        return self.returncode

    def send_signal(self, number):
        """Sends it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Ends it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _code_of(function):
    try:
        function()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def meeting_place():
    """Returns the variables by which the processes of one run find each other, and none that say which one this is."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "LOCAL_", "NODE_"))}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {**clean, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def run_in(count, function, folder, seconds=300):
    """Calls a function in some processes that a launcher has started as one run, and fails if one of them fails.

    Returns what they said, one after the other.
    """
    shared = {**meeting_place(), "WORLD_SIZE": str(count)}
    processes = [
        Forked(function, environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, folder=folder)
        for rank in range(count)
    ]
    codes = [process.wait(seconds) for process in processes]
    said = "".join(process.said.read_text() for process in processes)
    for process in processes:
        process.said.unlink()
    assert codes == [0] * count, said[-3000:]
    return said
