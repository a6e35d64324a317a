"""Which nodes and store there should be: the range `nodes`, rounds, replacements, notices.

- Strive for `nodes.max`; training goes on with what is left, down to `nodes.min`, while replacements start.
- A replacement takes the lowest index that nobody holds, and that index's next attempt.
- A node under notice is replaced before it goes, at another index; it goes by itself.
- A round is one rendezvous. A changed range, a store that is lost or will go, and agents that are all gone
  mean a new one: the agents of the old round get a notice, save and leave, and only then the new one starts.
- Several nodes need the store: it is started first, its address goes into each node's start. One under notice
  is replaced at once, and told to go only when nobody needs it any more: without it nobody could save.

Not here: how long to wait after what (recovery.py), what is stopped at the end (cleanup.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from aurl_operator.core.accounts.booking import INTENT_SECONDS, Ended
from aurl_operator.core.memory import Intent
from aurl_operator.core.names import process_name, slot
from aurl_operator.core.observed import Process, Refusal, Role
from aurl_operator.core.plan import Start
from aurl_operator.core.policies.recovery import held_until
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Cause

BARRED = 20
"""How many lost nodes a replacement bars."""

CUT_OFF = "its store is lost"
CUT_OFF_SECONDS = 5.0
"""How long agents without their store are waited for: they end by themselves when it is silent; those that
hear of nothing (their machine is lost) cannot meet the new ones, and can commit nothing over them."""

_MAY_LIVE = (Cause.NODE_LOST, Cause.DELETED, Cause.HANG)

RETRY_SECONDS = 15.0
"""After a refused start, before the next try."""


def rounds(s: Situation, ended: Sequence[Ended]) -> Situation:
    """Begins a new round where agents could not meet any more in the old one."""
    if not s.open or s.suspended or s.memory.finishing_since is not None:
        return s
    memory = s.memory
    if memory.round == 0:
        return s.next_round()
    there = any(_serves(s, p) for p in s.living(Role.STORE)) or bool(_pending(s, Role.STORE))
    gone = any(e.role is Role.STORE and e.cause is not Cause.STOPPED for e in ended)
    lost_store = gone and not there
    unreachable = any(e.cause is Cause.STORE_LOST and e.round == memory.round for e in ended)
    changed = (memory.nodes_min, memory.nodes_max) != (s.spec.nodes.min, s.spec.nodes.max)
    if unreachable and not lost_store:
        for store in s.living(Role.STORE):
            s = s.stop(store.uid, "its agents cannot reach it", kill=True)
    nobody = not s.nodes and not any(i.role is Role.NODE for i in memory.starting)
    going = any(p.uid not in memory.stopping and not _serves(s, p) for p in s.living(Role.STORE))
    leaves = going and not there and memory.round_used and s.elastic
    if lost_store or unreachable or changed or leaves or (nobody and memory.round_used):
        s = s.next_round()
    for node in s.nodes:
        if node.round != s.memory.round:
            s = s.stop(node.uid, CUT_OFF if lost_store or unreachable else "a new round begins")
    return s


def needed(s: Situation, store: Process) -> bool:
    """Whether nodes still meet and save at this store; those of a newer round have another one by now."""
    newer = any(p.attempt > store.attempt for p in s.living(Role.STORE))
    of = [*(p.round for p in s.nodes), *(i.round for i in _pending(s, Role.NODE))]
    return any(not newer or number != s.memory.round for number in of)


def starts(s: Situation) -> tuple[Situation, tuple[Start, ...]]:
    """The store and nodes to start now."""
    if not s.open or s.suspended or s.memory.finishing_since is not None:
        return s, ()
    if s.memory.started_at is None:
        s = s.remember(started_at=s.now)
    hold = max(held_until(s), s.memory.hold_until)
    if s.now < hold:
        return s.wake(hold), ()
    address: str | None = None
    if s.elastic:
        s, store, address = _store(s)
        if address is None:
            return s, store
    else:
        store = ()
    if _old_round_lingers(s):
        for stop in s.memory.stopping.values():
            if stop.reason == CUT_OFF:
                s = s.wake(stop.since + CUT_OFF_SECONDS)
        return s, store
    s, nodes = _nodes(s, address)
    return s, (*store, *nodes)


def refusals(s: Situation) -> list[Refusal]:
    """Refusals that still stand: that of a node that is missing no more, say, is got over.

    Another index may have been started in its place, so it need not be tried again for that.
    """
    missing = () if _old_round_lingers(s) else _lowest(_missing(s), {p.index for p in s.nodes})
    return [
        r
        for r in s.refusals
        if r.role is not Role.NODE or r.index in missing or (missing and s.now < r.at + RETRY_SECONDS)
    ]


def surplus(s: Situation) -> Situation:
    """Gives notice to nodes beyond `nodes.max`, highest index first, and to a store nobody needs."""
    if not s.open or s.suspended:
        return s
    staying = [p for p in s.nodes if _stays(s, p)]
    for node in staying[s.spec.nodes.max :]:
        s = s.stop(node.uid, "one too many")
    stores = s.living(Role.STORE)
    if s.elastic:
        # More than one stays only where a notice was taken back.
        stores = tuple(p for p in stores if _serves(s, p))[:-1]
    for store in stores:
        if not needed(s, store):
            s = s.stop(store.uid, "not needed")
    return s


def _old_round_lingers(s: Situation) -> bool:
    """Whether agents that cannot meet the new ones may still train: two worlds at once are never wanted."""
    leaving = [p for p in s.nodes if s.leaving(p) and not _cut_off(s, p)]
    if leaving and not s.elastic:
        return True
    old = any(i.round != s.memory.round for i in s.memory.starting if i.role is Role.NODE)
    return old or any(p.round != s.memory.round for p in leaving)


def _cut_off(s: Situation, process: Process) -> bool:
    """Whether a node of a round without a store has had its time to leave."""
    stop = s.memory.stopping.get(process.uid)
    return stop is not None and stop.reason == CUT_OFF and s.now >= stop.since + CUT_OFF_SECONDS


def _stays(s: Situation, process: Process) -> bool:
    """Whether a node counts towards `nodes.max`. One under notice does not if another can join beside it."""
    return not s.leaving(process) and (process.notice is None or not s.elastic)


def _serves(s: Situation, store: Process) -> bool:
    """Whether a store is to stay: nobody has told it to go, and its machine is not announced to."""
    return store.uid not in s.memory.stopping and store.notice is None and not store.stopping


def _store(s: Situation) -> tuple[Situation, tuple[Start, ...], str | None]:
    living = s.living(Role.STORE)
    stores = [p for p in living if _serves(s, p)]
    if stores:
        return s, (), stores[-1].address
    if any(p.uid in s.memory.stopping for p in living) or _pending(s, Role.STORE):
        return s, (), None
    s, wait = _refused(s, Role.STORE)
    if wait:
        return s, (), None
    s, start = order(s, Role.STORE, 0)
    return s, (start,), None


def _nodes(s: Situation, address: str | None) -> tuple[Situation, tuple[Start, ...]]:
    intents = _pending(s, Role.NODE)
    s, wait = _refused(s, Role.NODE)
    if wait:
        return s, ()
    found: list[Start] = []
    for index in _lowest(_missing(s) - len(intents), {p.index for p in s.nodes} | {i.index for i in intents}):
        s, start = order(s, Role.NODE, index, address)
        found.append(start)
    if found:
        s = s.remember(round_used=True)
    return s, tuple(found)


def _missing(s: Situation) -> int:
    if not s.elastic and s.nodes:
        # Two agents that each host a rendezvous of their own would be two worlds.
        return 0
    return s.spec.nodes.max - sum(1 for p in s.nodes if _stays(s, p))


def _lowest(number: int, taken: set[int]) -> tuple[int, ...]:
    """The lowest indices that are not taken."""
    free = (i for i in itertools.count() if i not in taken)
    return tuple(itertools.islice(free, max(0, number)))


def _pending(s: Situation, role: Role) -> list[Intent]:
    return [i for i in s.memory.starting if i.role is role]


def _refused(s: Situation, role: Role) -> tuple[Situation, bool]:
    """Whether the last try was refused too short a time ago."""
    again = max((r.at + RETRY_SECONDS for r in s.refusals if r.role is role), default=0.0)
    return s.wake(again), s.now < again


def _lost(s: Situation) -> tuple[str, ...]:
    """UIDs of the processes that were lost with their machine, the newest: they may not be dead."""
    lost = [u for i in s.memory.incidents if i.cause in _MAY_LIVE for u in i.uids]
    return tuple(lost[-BARRED:])


def order(
    s: Situation, role: Role, index: int, store: str | None = None, *, keep_best: bool = False
) -> tuple[Situation, Start]:
    """Orders a start under the next attempt of this index, and remembers it."""
    memory = s.memory
    key = slot(role, index)
    attempt = memory.attempts.get(key, 0)
    name = process_name(role, index, attempt)
    start = Start(
        role=role,
        index=index,
        attempt=attempt,
        round=memory.round,
        name=name,
        rdzv_id=f"{s.observed.run_id}-{memory.round}",
        nodes_min=memory.nodes_min,
        nodes_max=memory.nodes_max,
        store=store,
        barred=_lost(s) if role is Role.NODE else (),
        trained=memory.durable_step is not None or bool(memory.furthest_step),
        keep_best=keep_best,
    )
    s = s.remember(
        attempts={**memory.attempts, key: attempt + 1},
        starting=(*memory.starting, Intent(role, name, index, attempt, memory.round, s.now)),
    )
    return s.wake(s.now + INTENT_SECONDS + 0.001), start
