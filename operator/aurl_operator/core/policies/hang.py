"""When a whole world stands still: no change of step, phase or generation for longer than any rank may take.

The agents' own verdicts come first (a rank's limit, by phase) and end one node; this is the net below them
for when no agent is left to judge, so it waits `MARGIN` seconds longer. All nodes are killed (they would not
hear a notice) and a new round begins. A sign of life within a step or a phase counts, as it does for the
agents: a step of many micro-batches, or an evaluation over hours, is no hang.

A world tells nothing before its first step: until then it has the time of all that may come before it. A job
whose progress was never seen, such as a `command` job, is not judged: silence alone says nothing. Nor is one
whose nodes cannot be reached: a cut network looks the same. The time before they could be reached counts for
nothing: who was away has not seen them stand still.
"""

from __future__ import annotations

from aurl_operator.core.memory import Advance
from aurl_operator.core.policies.recovery import charge_hang
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Phase

MARGIN = 120.0
"""Seconds beyond a phase's limit, in which the agents' own verdict comes."""

SILENT = (Phase.START, Phase.LOAD, Phase.COMPILE, Phase.EVALUATE, Phase.SAVE, Phase.STEP)
"""What a world may do, one after the other, before it tells of its first step: it may make up an evaluation
that the one before had no time for, and save what is chosen by it."""


def judge(s: Situation) -> Situation:
    """Charges a hang and starts a new round if nothing has moved for too long."""
    whole_since = s.memory.whole_since
    reached_since = s.observed.reached_since
    idle = s.suspended or not s.open or s.memory.finishing_since is not None
    if s.spec.training is None or idle or not s.memory.progress_at:
        return s
    if whole_since is None or reached_since is None:
        return s
    limits = s.spec.recovery.hang.limits.seconds()
    mark = s.memory.advance
    if mark is None or mark.at < whole_since or _forms(s, mark):
        where, limit = "before the first step of a world", sum(limits[phase] for phase in SILENT)
    else:
        where, limit = f"in phase {mark.phase}", limits[Phase(mark.phase)]
    heard = s.observed.progress.alive_at if s.observed.progress is not None else None
    since = max(whole_since, reached_since, mark.at if mark is not None else 0.0, heard or 0.0)
    due = since + limit + MARGIN
    if s.now < due:
        return s.wake(due)
    message = f"no progress {where} for {s.now - since:.0f} s, {limit:.0f} s are allowed"
    s = charge_hang(s, f"hang/{s.memory.round}/{since:.3f}", message)
    for node in s.nodes:
        s = s.stop(node.uid, "hung", kill=True)
    return s.remember(whole_since=None).next_round()


def _forms(s: Situation, mark: Advance) -> bool:
    """Whether nodes of a job that stayed whole are to form another world than the one that told last."""
    lost = any(not i.over and i.at >= mark.at for i in s.memory.incidents)
    return lost or s.memory.world != s.ready * s.spec.procs_per_node
