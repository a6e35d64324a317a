"""What losses cost: progress seen, incidents that are over, goodput.

Goodput = seconds of steps that are in the result / seconds since the first node was ready, without the time
the job was suspended on purpose. An incident is over at the first step that had not been done before it:
- `recovery_seconds`: from the loss to the first step finished after it, whether new or done again;
- `steps_redone`: from the step resumed from to the furthest one known before the loss;
- `lost_seconds`: from the loss to the first new step, so the steps done again are in it. While several
  incidents are open, time counts for the newest: the sum is never more than the time that went by.
Time spent suspended counts for none of these.
A loss that the world of its time outlives, such as that of a node that had not joined yet, costs nothing.
A `command` job reports no steps: its incidents are over when all its nodes are ready again.

Not here: what makes an incident (policies/recovery.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from aurl_operator.core.accounts.booking import Ended
from aurl_operator.core.memory import Advance, Incident
from aurl_operator.core.policies.recovery import refill
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Cause, LedgerEntry, Progress

OUTLIVED_SECONDS = 30.0
"""A world that has lost a member makes no step after so long: ranks leave when a peer is silent for ten."""


def advance(s: Situation) -> Situation:
    """Takes in progress: what is new in it, budgets it refills, incidents it ends."""
    progress = s.observed.progress
    if progress is None or progress.rank != 0 or progress.at <= s.memory.progress_at:
        return s
    memory = s.memory
    if progress.generation != memory.generation:
        s = s.tell(
            LedgerEntry(
                kind="generation",
                at=progress.at,
                id=f"generation/{memory.round}/{progress.generation}",
                message=f"generation {progress.generation} of {progress.world} ranks",
                step=progress.resumed_from,
                world=progress.world,
                generation=progress.generation,
            )
        )
    mark = memory.advance
    here = (progress.generation, progress.phase, progress.step)
    if mark is None or (mark.generation, mark.phase, mark.step) != here:
        mark = Advance(*here, at=progress.at)
    heard = memory.progress_at
    before = memory.durable_step
    durable = progress.last_durable_step
    s = s.remember(
        progress_at=progress.at,
        generation=progress.generation,
        world=progress.world,
        resumed_from=progress.resumed_from,
        productive_seconds=progress.productive_seconds,
        advance=mark,
    )
    if durable is not None:
        s = s.remember(saved_step=durable, saved_name=progress.last_durable_name)
    if durable is not None and (before is None or durable > before):
        s = s.remember(durable_step=durable)
        # A first sight of a checkpoint that was resumed from is not a new one.
        if durable > (progress.resumed_from or 0):
            s = refill(s)
    s = _after_losses(s, progress, heard)
    return s.remember(furthest_step=max(s.memory.furthest_step or 0, progress.step))


def saved(s: Situation, ended: Sequence[Ended]) -> Situation:
    """Takes in what nodes said was durable when they ended: too soon after their last save to be asked again.

    Those that ended well have the last word; what others said counts if nothing has been heard since.
    """
    for end in ended:
        over = end.cause is Cause.SUCCEEDED and end.round == s.memory.round
        if end.durable_step is not None and (over or end.at >= s.memory.progress_at):
            s = s.remember(saved_step=end.durable_step, saved_name=end.durable_name)
    return s


def _after_losses(s: Situation, progress: Progress, heard: float) -> Situation:
    """Incidents before which this step had not been made are over. `heard`: when progress was told before."""
    incidents: list[Incident] = []
    over: list[Incident] = []
    outlived: list[Incident] = []
    resumed = progress.resumed_from or 0
    for incident in s.memory.incidents:
        if not incident.over and progress.at > incident.at:
            if progress.generation == incident.generation:
                # The old world may have finished a step or two that was not reported before the loss.
                furthest = max(incident.furthest or 0, progress.step)
                if heard > incident.at + OUTLIVED_SECONDS and furthest > (incident.furthest or 0):
                    outlived.append(incident)
                incident = dataclasses.replace(incident, furthest=furthest)
            elif progress.step > resumed or progress.step > (incident.furthest or 0):
                incident = _resumed(incident, progress, resumed, s.asleep)
                if progress.step > (incident.furthest or 0):
                    over.append(incident)
        incidents.append(incident)
    s = s.remember(incidents=tuple(incidents))
    return close(_cost_nothing(s, progress.at, outlived), progress.at, over)


def _resumed(incident: Incident, progress: Progress, resumed: int, asleep: float) -> Incident:
    if incident.recovery_seconds is not None:
        return incident
    return dataclasses.replace(
        incident,
        recovery_seconds=max(0.0, progress.at - incident.at - (asleep - incident.asleep)),
        steps_redone=max(0, (incident.furthest or 0) - resumed),
    )


def _cost_nothing(s: Situation, at: float, outlived: list[Incident]) -> Situation:
    """Ends incidents that stopped nobody: the same world trains on."""
    done: dict[str, Incident] = {}
    for i in outlived:
        done[i.id] = dataclasses.replace(i, over=True, lost_seconds=0.0, recovery_seconds=0.0, steps_redone=0)
    s = s.remember(incidents=tuple(done.get(i.id, i) for i in s.memory.incidents))
    return s.tell(*(_recovered(i, at) for i in done.values()))


def whole_again(s: Situation) -> Situation:
    """Ends the incidents of a job that reports no steps, once all its nodes are ready."""
    if s.spec.training is not None or s.memory.progress_at or s.ready < s.spec.nodes.max:
        return s
    return close(s, s.now, [i for i in s.memory.incidents if not i.over and i.at < s.now])


def close(s: Situation, at: float, incidents: list[Incident], *, recovered: bool = True) -> Situation:
    """Ends `incidents` at `at`. `recovered`: with a ledger entry each; a job that failed recovers nothing."""
    if not incidents:
        return s
    ordered = sorted(incidents, key=lambda i: i.at)
    until = [*((i.at, i.asleep) for i in ordered[1:]), (at, s.asleep)]
    lost = dict(s.memory.lost_seconds)
    done: dict[str, Incident] = {}
    for incident, (end, asleep) in zip(ordered, until, strict=True):
        seconds = max(0.0, end - incident.at - (asleep - incident.asleep))
        cause = incident.cause.value
        lost[cause] = lost.get(cause, 0.0) + seconds
        recovery = incident.recovery_seconds
        if recovery is None and recovered:
            recovery = max(0.0, at - incident.at - (s.asleep - incident.asleep))
        done[incident.id] = dataclasses.replace(
            incident, over=True, lost_seconds=seconds, recovery_seconds=recovery
        )
        if recovered:
            s = s.tell(_recovered(done[incident.id], at))
    return s.remember(
        incidents=tuple(done.get(i.id, i) for i in s.memory.incidents),
        lost_seconds=lost,
    )


def _recovered(incident: Incident, at: float) -> LedgerEntry:
    return LedgerEntry(
        kind="recovered",
        at=at,
        id=incident.id,
        cause=incident.cause.value,
        nodes=list(incident.nodes),
        uids=list(incident.uids),
        message=incident.message,
        step=incident.furthest,
        lost_seconds=incident.lost_seconds,
        recovery_seconds=incident.recovery_seconds,
        steps_redone=incident.steps_redone,
    )


def goodput(s: Situation) -> float | None:
    """Share of the time since the first node was ready that is in the result; None: cannot be told yet."""
    memory = s.memory
    if memory.first_ready_at is None or not memory.progress_at:
        return None
    end = memory.outcome.at if memory.outcome else s.now
    elapsed = end - memory.first_ready_at - s.asleep
    return None if elapsed <= 0 else min(1.0, memory.productive_seconds / elapsed)
