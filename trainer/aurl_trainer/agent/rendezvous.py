"""torch's c10d rendezvous, but a notice ends the wait for others, and a node may leave without closing it.

Not here: when to join and when to leave (node.py); the store (board.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistStoreError
from torch.distributed.elastic.rendezvous.api import RendezvousParameters
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    DynamicRendezvousHandler,
    RendezvousTimeout,
    _Action,
    _RendezvousContext,
)

RENDEZVOUS_DEFAULTS = {
    "last_call_timeout": 5,
    "join_timeout": 10 * 365 * 86400,
    "keep_alive_interval": 2,
    "keep_alive_max_attempt": 3,
    "read_timeout": 20,
    "connect_timeout": 300,
}
"""Seconds. Waiting for nodes is the operator's business; a silent node is out of the next world after 6 s."""


class Noticed(Exception):
    """A preemption notice came while no ranks were running."""


class _Backend(C10dRendezvousBackend):
    """torch's, but a notice ends the wait for other nodes."""

    def __init__(self, store: TCPStore, run: str, noticed: Callable[[], bool]) -> None:
        super().__init__(store, run)
        self.joining = False
        self._noticed = noticed

    def get_state(self) -> Any:
        """See base class."""
        self._check()
        return super().get_state()

    def set_state(self, state: bytes, token: Any = None) -> Any:
        """See base class."""
        self._check()
        return super().set_state(state, token)

    def _check(self) -> None:
        if self.joining and self._noticed():
            raise Noticed


class _LeaveOp:
    """Take this node off all lists, without closing the rendezvous for the others."""

    def __init__(self) -> None:
        self.place: tuple[int, int] | None = None
        """Round and number of this node in a complete world, if it was on the list of one."""

    def __call__(self, context: _RendezvousContext, deadline: float) -> _Action:
        node, state = context.node, context.state
        if node in state.participants:
            if state.complete:
                self.place = state.round, state.participants[node]
            action = _Action.REMOVE_FROM_PARTICIPANTS
        elif node in state.wait_list:
            action = _Action.REMOVE_FROM_WAIT_LIST
        elif node in state.redundancy_list:
            action = _Action.REMOVE_FROM_REDUNDANCY_LIST
        else:
            return _Action.FINISH
        return _Action.ERROR_TIMEOUT if time.monotonic() > deadline else action


class Rendezvous(DynamicRendezvousHandler):
    """torch's c10d rendezvous, with a way to leave it and a look at its round."""

    @classmethod
    def create(cls, store: TCPStore, p: RendezvousParameters, noticed: Callable[[], bool]) -> Rendezvous:
        """A handler on `store` whose wait for others ends when `noticed()`."""

        def seconds(name: str) -> timedelta | None:
            value = p.get_as_int(f"{name}_timeout")
            return None if value is None else timedelta(seconds=value)

        backend = _Backend(store, p.run_id, noticed)
        handler: Rendezvous = cls.from_backend(
            p.run_id,
            store,
            backend,
            p.min_nodes,
            p.max_nodes,
            p.local_addr,
            RendezvousTimeout(seconds("join"), seconds("last_call"), seconds("close"), seconds("heartbeat")),
            keep_alive_interval=cast(int, p.get_as_int("keep_alive_interval")),
            keep_alive_max_attempt=cast(int, p.get_as_int("keep_alive_max_attempt")),
        )
        handler.backend = backend
        return handler

    backend: _Backend

    def next_rendezvous(self) -> Any:
        """See base class. Raises Noticed, and DistStoreError if this world is none any more."""
        self.backend.joining = True
        try:
            return super().next_rendezvous()
        finally:
            self.backend.joining = False

    def _get_world(self) -> tuple[int, int]:
        """See base class: the rank is from the list as it was made, the size is of what is left of it."""
        ranks = sorted(self._state_holder.state.participants.values())
        if ranks != list(range(len(ranks))) or len(ranks) < self.settings.min_nodes:
            raise DistStoreError("a node left while the world formed")
        world: tuple[int, int] = super()._get_world()
        return world

    @property
    def members(self) -> frozenset[str]:
        """The agents of the world as last read from the store: address, process and a number of each."""
        return frozenset(map(str, self._state_holder.state.participants))

    @property
    def round(self) -> int:
        """The round as last read from the store."""
        return int(self._state_holder.state.round)

    def formed(self) -> bool:
        """Whether the job has had a world yet, asked of the store."""
        self._state_holder.sync()
        state = self._state_holder.state
        return bool(state.complete) or int(state.round) > 0

    def gone(self, round_: int, nodes: int) -> frozenset[int]:
        """Which of a world's nodes are on the list no more, as last read: they left, or are silent."""
        state = self._state_holder.state
        left = state.participants.values() if state.round == round_ else ()
        return frozenset(range(nodes)) - frozenset(left)

    left: tuple[int, int] | None = None
    """Round and number of this node in the world that others have made with it, when it left last."""

    def leave(self) -> None:
        """Get out of the way of the others' next world."""
        self._stop_heartbeats()
        operation = _LeaveOp()
        try:
            self._op_executor.run(operation, self._get_deadline(timedelta(seconds=5)))
        finally:
            self.left = operation.place
