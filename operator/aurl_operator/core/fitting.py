"""A memory that fits where it is kept: what it can do without goes first, and what is alive never.

A job of the allowed size has room for all of it; this is for what nobody thought of, since a memory that is
refused would leave its job as it is for ever. Not here: how a memory is written (memory.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from aurl_operator.api.status import MAX_MEMORY
from aurl_operator.core.memory import Incident, Memory

LAST = 3
"""Incidents that stay whatever happens, the newest."""


def fitted(memory: Memory, seen: Collection[str], room: int = MAX_MEMORY) -> tuple[Memory, str]:
    """The memory with what is needed to make its JSON no longer than `room`, and that JSON.

    `seen`: UIDs of the processes that can still be seen; that their end is booked must not be forgotten.
    """
    text = memory.to_json()
    steps: tuple[Callable[[Memory], Memory], ...] = (
        _without_tracebacks,
        lambda m: _with_incidents(m, tuple(i for i in m.incidents[:-LAST] if not i.over)),
        lambda m: dataclasses.replace(m, booked={u: at for u, at in m.booked.items() if u in seen}),
        lambda m: _with_incidents(m, ()),
        lambda m: dataclasses.replace(m, outbox=()),
    )
    for step in steps:
        if len(text) <= room:
            break
        memory = step(memory)
        text = memory.to_json()
    return memory, text


def _without_tracebacks(memory: Memory) -> Memory:
    return dataclasses.replace(
        memory,
        incidents=tuple(dataclasses.replace(i, traceback=None) for i in memory.incidents),
        outbox=tuple(dataclasses.replace(e, traceback=None) for e in memory.outbox),
    )


def _with_incidents(memory: Memory, older: tuple[Incident, ...]) -> Memory:
    kept = (*older, *memory.incidents[-LAST:])
    ids = {incident.id for incident in kept}
    unnamed = {i: more for i, more in memory.unnamed.items() if i in ids}
    return dataclasses.replace(memory, incidents=kept, unnamed=unnamed)
