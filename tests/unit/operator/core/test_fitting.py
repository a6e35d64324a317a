"""The memory of the largest jobs fits into an object's status, whatever has happened to them."""

from __future__ import annotations

import dataclasses
import json
import random
import uuid

import pytest

from aurl_operator.api.spec import MAX_NODES
from aurl_operator.api.status import MAX_MEMORY
from aurl_operator.core.fitting import LAST, fitted
from aurl_operator.core.memory import Incident, Intent, Live, Memory, MemoryFormatError, Stop
from aurl_operator.core.observed import Role
from aurl_operator.core.policies import recovery
from aurl_trainer.contract import Cause, LedgerEntry
from tests.unit.operator.core.scene import T0


def words(chance: random.Random, length: int) -> str:
    """Text that does not compress better than a traceback does."""
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz /._:", k=length))


def worst(nodes: int, worlds: int, opened: int) -> Memory:
    """All nodes are told to go, `worlds` were lost in ten minutes, and no incident is over."""
    chance = random.Random(1)

    def uids(n: int) -> list[str]:
        return [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(n)]

    live = uids(nodes)
    incidents = tuple(
        Incident(
            id=f"incident/{uids(1)[0]}",
            cause=Cause.PREEMPTED,
            at=T0 + chance.random(),
            nodes=tuple(f"worker-{chance.randrange(nodes)}-{n}" for _ in range(recovery.NAMED)),
            uids=tuple(uids(recovery.NAMED)),
            message=words(chance, recovery.MESSAGE),
            traceback=words(chance, 2048) if n >= opened - recovery.KEPT else None,
        )
        for n in range(opened)
    )
    return Memory(
        live={u: Live(Role.NODE, f"worker-{n}-9", n, 9, 9, T0 + n / 7) for n, u in enumerate(live)},
        stopping={u: Stop(T0 + 9.123, "a new round begins", 600.0) for u in live},
        booked=dict.fromkeys(uids(worlds * nodes), T0 + 0.123456),
        attempts={f"node/{n}": 9 for n in range(nodes)},
        finished=tuple(live),
        incidents=incidents,
        unnamed={i.id: nodes for i in incidents},
        outbox=tuple(
            LedgerEntry(kind="incident", at=T0, id=i.id, nodes=list(i.nodes), traceback=i.traceback)
            for i in incidents[-recovery.KEPT :]
        ),
    )


def test_the_largest_job_fits_in_an_ordinary_bad_time() -> None:
    memory = worst(MAX_NODES, worlds=1, opened=3)
    kept, text = fitted(memory, ())
    assert kept == memory, f"expected nothing to be given up for {len(text)} characters"
    assert len(text) <= MAX_MEMORY and Memory.from_json(text) == memory


def test_the_largest_job_fits_while_it_starts() -> None:
    starting = tuple(Intent(Role.NODE, f"worker-{n}-0", n, 0, 1, T0) for n in range(MAX_NODES))
    _, text = fitted(Memory(starting=starting), ())
    assert len(text) < MAX_MEMORY / 4


def test_the_worst_story_fits_and_keeps_who_lives_and_what_is_seen() -> None:
    memory = worst(MAX_NODES, worlds=8, opened=recovery.KEPT + recovery.KEPT_OPEN)
    seen = list(memory.booked)[:10]
    kept, text = fitted(memory, seen)
    assert len(text) <= MAX_MEMORY, f"{len(text)} characters"
    assert Memory.from_json(text) == kept
    assert (kept.live, kept.stopping, kept.attempts) == (memory.live, memory.stopping, memory.attempts)
    assert set(seen) <= set(kept.booked), "expected no end that can still be seen to be booked again"
    assert [i.id for i in kept.incidents[-LAST:]] == [i.id for i in memory.incidents[-LAST:]]


def test_what_it_can_do_without_goes_in_order() -> None:
    memory = worst(8, worlds=1, opened=9)
    over = dataclasses.replace(memory.incidents[0], over=True)
    memory = dataclasses.replace(memory, incidents=(over, *memory.incidents[1:]))
    room = len(memory.to_json())
    assert fitted(memory, (), room)[0] == memory
    slim, _ = fitted(memory, (), room - 1)
    assert len(slim.incidents) == 9 and not any(i.traceback for i in slim.incidents)
    room = len(slim.to_json())
    slim, _ = fitted(memory, (), room - 1)
    assert len(slim.incidents) == 8 and over.id not in slim.unnamed and slim.booked == memory.booked


@pytest.mark.parametrize("packed", ["!", "QUJD", ""])
def test_a_damaged_packed_memory_is_refused(packed: str) -> None:
    with pytest.raises(MemoryFormatError, match="damaged"):
        Memory.from_json(json.dumps({"version": 2, "packed": packed}))


def test_a_packed_memory_that_is_cut_off_is_refused() -> None:
    text = json.loads(worst(MAX_NODES, worlds=1, opened=1).to_json())
    assert text["version"] == 2, "expected so large a memory to be packed"
    with pytest.raises(MemoryFormatError, match="damaged"):
        Memory.from_json(json.dumps({**text, "packed": text["packed"][:4000]}))
