"""One process that listens, answers, and ends when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import uvicorn
from starlette.types import ASGIApp

from vimlight.errors import ConfigError

__all__ = ["bound", "serve"]

# What is being answered may take so long once the end was asked for.
_SECONDS_TO_END = 5


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; whoever connects waits until `serve` answers.

    Args:
        host: Address, or a name of this machine.
        port: Port; 0 for a free one.

    Raises:
        ConfigError: If the address is none of this machine's, or the port is in use or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigError(f"--host {host!r} is no address of this machine: {error}") from None
    found = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        # Elsewhere this would share the port with whoever has it.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
        # Two processes may bind to one port until one of them listens.
        found.listen(64)
    except OSError as error:
        found.close()
        raise ConfigError(f"cannot listen at {host}, port {port}: {error.strerror}; choose another --port") from None
    return found


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answers requests until SIGTERM or Ctrl-C; what is being answered then is finished first.

    Args:
        app: The application.
        listening: A socket of `bound`.
    """
    config = uvicorn.Config(
        app, http="h11", loop="asyncio", ws="none", lifespan="off", log_level="warning", access_log=False,
        server_header=False, limit_concurrency=128, timeout_graceful_shutdown=_SECONDS_TO_END,
    )  # fmt: skip
    # The server catches signals and, once it has ended, raises them again: to end is what they were for.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listening.close()
