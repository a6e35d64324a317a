"""Getting to `nodes.min`: what can never start, and what to do when it takes too long.

The clock of `startTimeoutSeconds` runs while fewer than `nodes.min` are ready and nothing of ours (backoff,
suspension, a round that is leaving) holds them back. When it runs out, a backend that will never have more
room ends the job; otherwise everything held is given back, so that another job can have it, and the start is
tried again after a growing pause. A gang scheduler holds nothing back, so with one the job just waits.
"""

from __future__ import annotations

from aurl_operator.api.recovery import Backoff
from aurl_operator.core.names import delay, node_name
from aurl_operator.core.observed import Process, Role, Waiting, WaitingReason
from aurl_operator.core.policies import elastic
from aurl_operator.core.policies.recovery import held_until
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import ExitCode

PAUSE = Backoff(initialSeconds=30, factor=2.0, maxSeconds=900)
"""After giving back, before trying again."""


def refuse_impossible(s: Situation) -> Situation:
    """Fails the job at once if something of it can never start; not what is on its way out.

    A job that tries again after it failed puts others in the place of what stayed from then and cannot start.
    """
    revived = s.observed.memory.outcome is not None and s.memory.outcome is None
    for process in s.observed.processes:
        waiting = process.waiting
        if waiting is None or not waiting.final or process.uid not in s.memory.live or not s.open:
            continue
        if revived:
            s = s.stop(process.uid, "cannot start; the job tries again", kill=True)
        elif process.uid not in s.memory.stopping:
            s = s.fail("CannotStart", f"{process.name}: {waiting.message}")
    for refusal in s.refusals:
        if refusal.waiting.final and s.open:
            name = node_name(refusal.role, refusal.index)
            s = s.fail("CannotStart", f"{name}: {refusal.waiting.message}")
    return s


def watch(s: Situation) -> Situation:
    """Keeps the times of being whole or short, and acts when short for too long."""
    memory = s.memory
    if s.ready and memory.first_ready_at is None:
        s = s.remember(first_ready_at=s.now - s.asleep)
    if s.whole:
        since = memory.whole_since
        whole = s.now if since is None else since
        return s.remember(whole_since=whole, short_since=None, give_backs=0, hold_until=0.0)
    s = s.remember(whole_since=None)
    if not s.open or s.suspended or _held(s) or memory.finishing_since is not None:
        return s.remember(short_since=None)
    since = s.now if memory.short_since is None else memory.short_since
    s = s.remember(short_since=since)
    if s.spec.scheduling.gang != "None":
        return s
    due = since + s.spec.start_timeout_seconds
    return s.wake(due) if s.now < due else _timed_out(s)


def _held(s: Situation) -> bool:
    leaving = any(s.leaving(p) for p in s.nodes)
    return leaving or s.now < max(held_until(s), s.memory.hold_until)


def _timed_out(s: Situation) -> Situation:
    least = s.spec.nodes.min
    limit = s.spec.start_timeout_seconds
    reason = blocking(s)
    words = f"{reason.reason}: {reason.message}" if reason and reason.message else ""
    text = f"{s.ready} of at least {least} nodes ready after {limit} s"
    text = f"{text} ({words})" if words else text
    if s.observed.capabilities.start_timeout_final:
        return s.fail("StartTimeout", text, ExitCode.NO_CAPACITY)
    times = s.memory.give_backs + 1
    for node in s.nodes:
        s = s.stop(node.uid, "start time-out: given back")
    pause = delay(PAUSE, times, f"{s.observed.run_id}/give-back")
    return s.next_round().remember(give_backs=times, hold_until=s.now + pause)


def blocking(s: Situation) -> Waiting | None:
    """The most telling reason why something does not run: the first that is not merely starting."""
    found: list[Waiting] = [r.waiting for r in elastic.refusals(s)]
    processes: list[Process] = [*s.living(Role.STORE), *s.nodes]
    found += [p.waiting for p in processes if p.waiting is not None]
    telling = [w for w in found if w.reason is not WaitingReason.STARTING]
    return next(iter([*telling, *found]), None)
