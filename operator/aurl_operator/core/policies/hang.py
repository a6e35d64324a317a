"""When a whole world stands still: no change of step, phase or generation for longer than any rank may take.

The agents' own verdicts come first (a rank's limit, by phase) and end one node; this is the net below them
for when no agent is left to judge, so it waits `MARGIN` seconds longer. All nodes are killed (they would not
hear a notice) and a new round begins. A job whose progress was never seen, such as a `command` job, is not
judged: silence alone says nothing. Nor is one whose nodes cannot be reached: a cut network looks the same.
The time before they could be reached counts for nothing: who was away has not seen them stand still.
"""

from __future__ import annotations

from aurl_operator.core.policies.recovery import charge_hang
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Phase

MARGIN = 120.0
"""Seconds beyond a phase's limit, in which the agents' own verdict comes."""


def judge(s: Situation) -> Situation:
    """Charges a hang and starts a new round if nothing has moved for too long."""
    whole_since = s.memory.whole_since
    reached_since = s.observed.reached_since
    idle = s.suspended or not s.open or s.memory.finishing_since is not None
    if s.spec.training is None or idle or not s.memory.progress_at:
        return s
    if whole_since is None or reached_since is None:
        return s
    phase, since = Phase.START, whole_since
    mark = s.memory.advance
    if mark is not None and mark.at >= whole_since:
        phase, since = Phase(mark.phase), mark.at
    since = max(since, reached_since)
    limit = s.spec.recovery.hang.limits.seconds()[phase]
    due = since + limit + MARGIN
    if s.now < due:
        return s.wake(due)
    message = f"no progress in phase {phase} for {s.now - since:.0f} s, {limit:.0f} s are allowed"
    s = charge_hang(s, f"hang/{s.memory.round}/{since:.3f}", message)
    for node in s.nodes:
        s = s.stop(node.uid, "hung", kill=True)
    return s.remember(whole_since=None).next_round()
