"""The store that agents and ranks share: to host it, to reach it, and the board of beats that it holds.

Not here: what a beat says and how it is judged (beats.py); torch's own use of the store (rendezvous.py).
"""

from __future__ import annotations

import contextlib
import re
import socket
from datetime import timedelta
from pathlib import Path

from torch._C._distributed_c10d import TCPStore

from aurl_trainer.agent.beats import Beat, Seen, Watch, agent_name, rank_name

_ESTABLISHED = "01"

BEAT_TIMEOUT = 3.0
"""Seconds that a reader of beats waits for a key that was there a moment ago."""


def listen(host: str, port: int) -> TCPStore:
    """Host a store that is reached only through `host`'s own address; port 0 takes a free one.

    torch's server would listen on every address of the machine, and agents trust what they read there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    bound = listener.getsockname()[1]
    return TCPStore(
        host,
        bound,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def connect(store: str, timeout: float, connect_timeout: float | None = None) -> TCPStore:
    """A client of the store at `host:port`, with a connection of its own. Raises DistNetworkError."""
    host, port = address(store)
    client = TCPStore(
        host,
        port,
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=connect_timeout or timeout),
    )
    client.set_timeout(timedelta(seconds=timeout))
    return client


def clients(port: int) -> int:
    """How many connections others have to the store that this process hosts; 0 where nothing tells."""
    found, own = 0, set()
    try:
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # the one by which the folder is read is closed by now
                own.add(str(link.readlink()))
        for family in ("tcp", "tcp6"):
            for line in Path(f"/proc/self/net/{family}").read_text().splitlines()[1:]:
                _, here, there, state, *more = line.split()
                if state == _ESTABLISHED and f"socket:[{more[5]}]" in own:
                    # Torch's server is a client of itself, too: both ends of that connection are ours.
                    found += (_port(here) == port) - (_port(there) == port)
    except (OSError, ValueError):
        return 0
    return found


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def bar(store: TCPStore, nodes: list[str]) -> None:
    """Say that these nodes, by UID, were replaced: if one comes back it must not join."""
    for uid in nodes:
        store.set(f"aurl/barred/{uid}", "1")


def is_barred(store: TCPStore, node: str) -> bool:
    """Whether somebody has taken this node's place."""
    return bool(node) and bool(store.check([f"aurl/barred/{node}"]))


class Board:
    """The beats of one world in the store, as one of its members writes and reads them."""

    def __init__(self, store: TCPStore, run: str, round_: int, nodes: int, ranks: int) -> None:
        """`run` is the rendezvous id, `round_` the rendezvous round that formed the world."""
        self._store, self._run, self._round = store, run, round_
        self._names = [*map(agent_name, range(nodes)), *map(rank_name, range(ranks))]
        self._watch = Watch()

    def write(self, name: str, beat: Beat) -> None:
        """Put one value."""
        self._store.set(f"{self._prefix(self._round)}{name}", beat.to_json())

    def read(self, awake: float) -> dict[str, Seen]:
        """All values that are there. `awake` is the reader's awake time, seconds."""
        keys = {name: f"{self._prefix(self._round)}{name}" for name in self._names}
        if not self._store.check(list(keys.values())):
            keys = {name: key for name, key in keys.items() if self._store.check([key])}
        values = self._store.multi_get(list(keys.values())) if keys else []
        beats = {name: Beat.from_json(value) for name, value in zip(keys, values, strict=True)}
        return self._watch.look(beats, awake)

    def open(self) -> None:
        """Say that this round is the newest, and clear away the beats of older rounds."""
        self._store.set(f"aurl/{self._run}/round", str(self._round))
        for key in self._store.list_keys():
            old = re.match(rf"/?(?:aurl/|torch\.rendezvous\.){re.escape(self._run)}[./](\d+)/", key)
            if old and int(old[1]) < self._round:
                self._store.delete_key(key.removeprefix("/"))

    def superseded(self) -> bool:
        """Whether a newer world has formed."""
        key = f"aurl/{self._run}/round"
        return bool(self._store.check([key])) and int(self._store.get(key)) > self._round

    def ask_regroup(self) -> None:
        """Ask the ranks to save and leave at a step's end: a node waits to join."""
        self._store.set(f"{self._prefix(self._round)}regroup", "1")

    def regroup_asked(self) -> bool:
        """Whether an agent has asked for it."""
        return bool(self._store.check([f"{self._prefix(self._round)}regroup"]))

    def _prefix(self, round_: int) -> str:
        return f"aurl/{self._run}/{round_}/"
