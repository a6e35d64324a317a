"""Ports of this machine's loopback interface for stores and progress. Not here: who listens there."""

from __future__ import annotations

import socket

_RECENT: list[int] = []
"""The last ports handed out: the kernel may offer one again before its owner listens there."""


def free_port() -> int:
    """A TCP port on which nothing listened a moment ago, and that was not handed out lately."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _RECENT:
            _RECENT.append(port)
            del _RECENT[:-256]
            return port
