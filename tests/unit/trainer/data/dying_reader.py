"""A child for readers.run that really dies in the ways a parser of C++ may. Each task says how."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from multiprocessing.connection import Connection


def main(descriptor: int) -> None:
    connection = Connection(descriptor)
    setup = json.loads(connection.recv_bytes())
    if setup.get("broken"):
        sys.exit("No module named 'parser'")
    connection.send_bytes(b'{"frames": 0}')
    while True:
        try:
            head, body = json.loads(connection.recv_bytes()), connection.recv_bytes()
        except (EOFError, OSError):
            return
        match head.get("do"):
            case "segfault":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "exit":
                os._exit(3)
            case "spin":
                signal.signal(signal.SIGPROF, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_PROF, 0.1)
                while True:
                    pass
            case "nonsense":
                connection.send_bytes(b"\xff not JSON")
            case "half":
                connection.send_bytes(b'{"frames": 2}')
                os.kill(os.getpid(), signal.SIGKILL)
            case "once" if not os.path.exists(head["flag"]):  # noqa: PTH110
                open(head["flag"], "w").close()  # noqa: PTH123
                os.kill(os.getpid(), signal.SIGKILL)
            case "refuse":
                connection.send_bytes(b'{"frames": 0, "failure": "not today"}')
                continue
        connection.send_bytes(json.dumps({"frames": 1, "process": os.getpid()}).encode())
        connection.send_bytes(body[::-1])


if __name__ == "__main__":
    main(int(sys.argv[1]))
