"""The agent's side of the beats: a thread that says how this node is, and learns how the others are.

Not here: how beats are judged (beats.py); what the node does about the news (node.py); the rank's side
(engine/survival/heartbeat.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistStoreError

from aurl_trainer.agent.beats import (
    SUSPICION,
    AwakeClock,
    Beat,
    Seen,
    State,
    agent_name,
    departed,
    rank_name,
    trouble,
)
from aurl_trainer.agent.blame import last_line
from aurl_trainer.agent.board import Board, is_barred
from aurl_trainer.contract import Env


@dataclass(frozen=True)
class News:
    """What an agent knows of its world, from the last exchange with the store."""

    trouble: str | None = None
    departed: str | None = None
    others_done: bool = False
    own: Mapping[int, Seen] = field(default_factory=dict)
    suspects: bool = False
    """An agent of lower number suspects a peer too."""
    superseded: str | None = None
    """That another world has formed without this node, in words."""
    ours: bool = False
    """Some rank of this world beats: it runs our loop."""
    unmet: frozenset[int] = frozenset()
    """Agents of this world that have said nothing in it yet, although there was time for it."""


@dataclass
class _World:
    board: Board
    node: int
    nodes: int
    ranks: range
    since: float
    news: News = field(default_factory=News)


class Pulse(threading.Thread):
    """Exchanges beats with the store; also the proof that the store still answers.

    `exchanges` grows with each answer: whoever watches it from outside notices a store that is frozen or
    powered off, on which a call may block for a quarter of an hour. `lost` holds the reason of a lost
    connection, `barred` whether another node has taken this one's place.
    """

    def __init__(self, store: TCPStore, run: str, node_name: str, timeout: float) -> None:
        super().__init__(name="pulse", daemon=True)
        self.exchanges = 0
        self.lost: str | None = None
        self.barred = False
        self._uid = os.environ.get(Env.NODE_UID, "")
        self._store, self._run, self._node_name, self._timeout = store, run, node_name, timeout
        self._interval = min(1.0, timeout / 10)
        self._clock = AwakeClock(2 * self._interval)
        self._lock = threading.Lock()
        self._world: _World | None = None
        self._newest = -1
        """The newest round in which this agent has said something."""
        self._state, self._message, self._number = State.RUNNING, "", 0
        self._wake = threading.Event()

    def enter(self, round_: int, node: int, nodes: int, ranks: range, world: int) -> None:
        """Beat in a new world, as agent `node` with the given ranks, for which first values are put."""
        board = Board(self._store, self._run, round_, nodes, world)
        with self._lock:
            if node == 0:
                board.open()
            for rank in ranks:
                board.write(rank_name(rank), Beat(0, State.RUNNING, self._node_name))
            self._state, self._message = State.RUNNING, ""
            self._world = _World(board, node, nodes, ranks, self._clock.tick())
            self._newest = round_
            self._exchange(self._world)

    def decline(self, round_: int, node: int, message: str) -> None:
        """Tell the others of a world that agent `node` of it, this one, will not come. Nothing if it came."""
        with self._lock:
            if round_ > self._newest:
                self._newest = round_
                beat = Beat(1, State.BROKEN, self._node_name, message=message)
                Board(self._store, self._run, round_, 0, 0).write(agent_name(node), beat)

    def leave(self, state: State, message: str) -> None:
        """Last word in this world; no beats after it."""
        with self._lock:
            self._state, self._message = state, message
            if self._world is not None:
                self._say(self._world)
            self._world = None

    def say(self, state: State, message: str) -> None:
        """Change what the beats say, at once."""
        with self._lock:
            self._state, self._message = state, message
            if self._world is not None:
                self._say(self._world)

    def ask_regroup(self) -> None:
        """Ask the ranks of this world to save and leave."""
        with self._lock:
            if self._world is not None:
                self._world.board.ask_regroup()

    def news(self, fresh: bool = False) -> News:
        """The newest knowledge; `fresh` asks the store now."""
        with self._lock:
            if self._world is None:
                return News()
            if fresh:
                self._exchange(self._world)
            return self._world.news

    def look_barred(self) -> bool:
        """Asks the store now whether another node has taken this one's place."""
        with self._lock:
            self.barred = self.barred or is_barred(self._store, self._uid)
        return self.barred

    def run(self) -> None:
        """The thread."""
        while True:
            try:
                with self._lock:
                    if self._world is not None:
                        self._exchange(self._world)
                    else:
                        self._store.check(["aurl"])
                    self.barred = self.barred or is_barred(self._store, self._uid)
                self.exchanges += 1
            except DistStoreError:
                continue  # keys of this world vanished while reading: the next exchange finds out why
            except Exception as error:
                self.lost = last_line(str(error)) or type(error).__name__
                return
            self._wake.wait(self._interval)

    def _say(self, world: _World) -> None:
        self._number += 1
        beat = Beat(self._number, self._state, self._node_name, message=self._message)
        world.board.write(agent_name(world.node), beat)

    def _exchange(self, world: _World) -> None:
        self._say(world)
        awake = self._clock.tick()
        seen = world.board.read(awake)
        unmet = [node for node in range(world.nodes) if agent_name(node) not in seen]
        own = {rank: seen[rank_name(rank)] for rank in world.ranks if rank_name(rank) in seen}
        mine = {agent_name(world.node), *map(rank_name, world.ranks)}
        peers = {name: s for name, s in seen.items() if name not in mine}
        agents = {name: s for name, s in peers.items() if name.startswith("agent/")}
        lower = {agent_name(node) for node in range(world.node)}
        world.news = News(
            trouble=trouble(peers, self._timeout * (SUSPICION if self._state is State.SUSPECT else 1.0)),
            departed=departed(agents),
            others_done=len(agents) == world.nodes - 1
            and all(s.beat.state is State.DONE for s in agents.values()),
            own=own,
            suspects=any(n in lower and s.beat.state is State.SUSPECT for n, s in agents.items()),
            superseded="another world has formed without this node" if world.board.superseded() else None,
            ours=any(s.beat.number > 0 for n, s in seen.items() if n.startswith("rank/")),
            unmet=frozenset(unmet if awake - world.since >= self._timeout else ()),
        )
