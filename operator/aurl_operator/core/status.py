"""The status that people read, from what was seen and decided. Nothing is decided here.

Conditions keep the time of their last change; their texts name instants, never time left, so that a status
changes only when something did.
"""

from __future__ import annotations

from aurl_operator.api.status import (
    CheckpointStatus,
    Condition,
    Goodput,
    IncidentStatus,
    JobPhase,
    JobStatus,
    NodesStatus,
    ProgressStatus,
)
from aurl_operator.core.accounts.ledger import goodput
from aurl_operator.core.memory import Incident, Memory
from aurl_operator.core.names import rfc3339
from aurl_operator.core.observed import Role
from aurl_operator.core.policies import recovery, start
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import NOTICED, LedgerEntry, Progress

SAID = 256
"""Characters of an incident's message that stand in why a job waits."""

_ACTIVE = (JobPhase.PENDING, JobPhase.STARTING, JobPhase.RECOVERING)

_TRAINED = (JobPhase.RUNNING, JobPhase.RECOVERING)
"""Phases after which a job that is not whole has lost something; a first node that is ready is no loss."""


def phase_of(s: Situation) -> JobPhase:
    """Where the job stands."""
    if s.observed.deleting:
        return JobPhase.DELETING
    if s.memory.outcome is not None:
        return s.memory.outcome.phase
    anything = bool(s.memory.live or s.memory.starting)
    if s.suspended:
        return JobPhase.SUSPENDING if anything else JobPhase.SUSPENDED
    if s.whole or s.memory.finishing_since is not None:
        return JobPhase.RUNNING
    lost = s.memory.phase in _TRAINED or any(not i.over for i in s.memory.incidents)
    if lost and s.memory.first_ready_at is not None:
        return JobPhase.RECOVERING
    return JobPhase.STARTING if anything else JobPhase.PENDING


def waiting_for(s: Situation) -> tuple[str, str]:
    """One word and one line: why the job does not train."""
    memory = s.memory
    held = _held_back(s)
    leaving = [p.name for p in s.nodes if s.leaving(p)]
    blocking = start.blocking(s)
    if s.now < memory.hold_until:
        reason, text = "NoCapacity", f"gave back what it held; tries again at {rfc3339(memory.hold_until)}"
    elif held is not None:
        reason, text = "Backoff", held
    elif blocking is not None and blocking.reason.value != "Starting":
        reason, text = blocking.reason.value, blocking.message
    elif leaving and not s.ready:
        reason, text = "Leaving", f"waits until {', '.join(leaving)} of the round before have left"
    elif s.elastic and not any(p.ready for p in s.living(Role.STORE)):
        reason, text = "StoreStarting", "waits for the rendezvous store"
    else:
        reason, text = "Starting", f"{s.ready} of at least {s.spec.nodes.min} nodes are ready"
    return reason, text


def _held_back(s: Situation) -> str | None:
    """Until when a backoff holds starts back, and after what; None: none does."""
    until = recovery.held_until(s)
    if s.now >= until:
        return None
    last = next((i for i in reversed(s.memory.incidents) if i.cause not in NOTICED), None)
    why = f" after {last.cause.value} of {', '.join(last.nodes)}: {last.message[:SAID]}" if last else ""
    return f"starts again at {rfc3339(until)}{why}"


def _missing(s: Situation) -> str:
    """How many nodes a job trains on, and what the others wait for."""
    held, blocking = _held_back(s), start.blocking(s)
    why = f"Backoff: {held}" if held else f"{blocking.reason}: {blocking.message}" if blocking else ""
    return f"{s.ready} of {s.spec.nodes.max} nodes" + (f"; {why}" if why else "")


def finish_phase(s: Situation) -> Situation:
    """Notes a change of phase, in the memory and in the ledger, and what follows for the conditions."""
    phase = phase_of(s)
    if phase != s.memory.phase or s.memory.phases == 0:
        number = s.memory.phases + 1
        s = s.remember(phase=phase, phases=number).tell(
            LedgerEntry(
                kind="phase", at=s.now, id=f"phase/{number}", phase=phase.value, message=_message(s, phase)
            )
        )
    return s.remember(conditions=_conditions(s, phase))


def _message(s: Situation, phase: JobPhase) -> str:
    outcome = s.memory.outcome
    if phase is JobPhase.DELETING:
        return "the job is being deleted"
    if outcome is not None:
        return outcome.message
    if phase in _ACTIVE:
        return ": ".join(waiting_for(s))
    if phase is JobPhase.SUSPENDING:
        return "nodes save and leave"
    if phase is JobPhase.SUSPENDED:
        if s.spec.suspend:
            return "suspended; goes on when suspend is false"
        return "interrupted; goes on when it is run again"
    if s.memory.finishing_since is not None:
        return f"finishing: {len(s.memory.finished)} nodes have finished"
    return f"{s.ready} of {s.spec.nodes.max} nodes are ready"


def _conditions(s: Situation, phase: JobPhase) -> tuple[Condition, ...]:
    outcome = s.memory.outcome
    text = _message(s, phase)[:1024]
    reason = outcome.reason if outcome else phase.value
    waiting = phase in _ACTIVE
    wait, words = waiting_for(s) if waiting else (reason, "")
    running = phase is JobPhase.RUNNING
    short = running and s.ready < s.spec.nodes.max and s.memory.finishing_since is None
    wanted = [
        ("Ready", running, reason, text),
        ("Waiting", waiting, wait, words),
        (
            "Degraded",
            short,
            "NodesMissing" if short else reason,
            _missing(s) if short else "",
        ),
        ("Suspended", phase is JobPhase.SUSPENDED, reason, ""),
        ("Succeeded", phase is JobPhase.SUCCEEDED, reason, text if phase is JobPhase.SUCCEEDED else ""),
        ("Failed", phase is JobPhase.FAILED, reason, text if phase is JobPhase.FAILED else ""),
    ]
    before = {c.type: c for c in s.memory.conditions}
    return tuple(_condition(s, before.get(kind), kind, yes, why, text) for kind, yes, why, text in wanted)


def _condition(
    s: Situation, before: Condition | None, kind: str, yes: bool, reason: str, text: str
) -> Condition:
    value = "True" if yes else "False"
    same = before is not None and before.status == value
    return Condition(
        type=kind,
        status="True" if yes else "False",
        reason=reason,
        message=text[:1024],
        lastTransitionTime=before.last_transition_time if same and before else rfc3339(s.now),
        observedGeneration=s.observed.job.metadata.generation,
    )


def status_of(s: Situation) -> JobStatus:
    """All of the status, from a situation whose phase is noted."""
    memory = s.memory
    outcome = memory.outcome
    progress = s.observed.progress
    ratio = goodput(s)
    # Nodes end too soon after the last step to be asked again; ending well means that it was made.
    finished = memory.phase is JobPhase.SUCCEEDED
    # What is durable at a place of the job's own is what its ranks have said, here as everywhere.
    untold = finished and progress is not None and s.spec.checkpoint.uri is None
    saved = progress.total_steps if untold and progress else memory.saved_step
    return JobStatus(
        phase=memory.phase,
        message=_message(s, memory.phase)[:1024],
        conditions=list(memory.conditions),
        nodes=NodesStatus(desired=s.spec.nodes.max, ready=s.ready),
        progress=_progress(progress, finished) if progress else None,
        checkpoint=_checkpoint(memory, saved),
        restarts=dict(memory.restarts),
        incidents=[_incident(i, memory.unnamed.get(i.id)) for i in memory.incidents[-recovery.KEPT :]],
        goodput=Goodput(
            ratio=None if ratio is None else round(ratio, 4),
            lostSeconds={cause: round(seconds, 3) for cause, seconds in memory.lost_seconds.items()},
        ),
        observedGeneration=s.observed.job.metadata.generation,
        startTime=None if memory.started_at is None else rfc3339(memory.started_at),
        completionTime=rfc3339(outcome.at) if outcome else None,
        exitCode=outcome.exit_code if outcome else None,
    )


def _checkpoint(memory: Memory, step: int | None) -> CheckpointStatus:
    return CheckpointStatus(
        lastDurableStep=step,
        lastDurableName=memory.saved_name if step == memory.saved_step else None,
        resumedFrom=memory.resumed_from,
        damaged=list(memory.damaged),
    )


def _progress(progress: Progress, finished: bool) -> ProgressStatus:
    return ProgressStatus(
        step=progress.total_steps if finished else progress.step,
        total=progress.total_steps,
        loss=progress.loss,
        valLoss=progress.val_loss,
        music=dict(progress.music),
        tokensPerSecond=progress.tokens_per_second,
        etaSeconds=None if finished else progress.eta_seconds,
    )


def _incident(incident: Incident, unnamed: int | None) -> IncidentStatus:
    return IncidentStatus(
        id=incident.id,
        cause=incident.cause.value,
        at=rfc3339(incident.at),
        nodes=list(incident.nodes),
        unnamed=unnamed,
        message=incident.message[:1024],
        traceback=incident.traceback,
        step=incident.furthest,
        recoverySeconds=incident.recovery_seconds,
        lostSeconds=incident.lost_seconds,
        stepsRedone=incident.steps_redone,
    )
