"""When a job has succeeded: its agents exit 0, which they may only do after the last step.

The first node that ends well starts the finish: nothing is started any more, and the others get
`finishTimeoutSeconds` to end (the grace period, if the nodes that ended well held every rank of the last
world: what still runs came too late to join). The job has succeeded when no node runs any more. If a node
of that world fails or is lost after another has ended well, the end of the run may be incomplete: all start
again in a new round, find the last checkpoint, and end properly.
Not here: what becomes of pods afterwards (cleanup.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from aurl_operator.api.status import JobPhase
from aurl_operator.core.accounts import ledger
from aurl_operator.core.accounts.booking import Ended
from aurl_operator.core.observed import Role
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Cause, ExitCode

SLACK = 2.0
"""Seconds before the first good end in which a failure still belongs to the same world."""


def finish(s: Situation, ended: Sequence[Ended]) -> Situation:
    """Notes nodes that ended well, and concludes success."""
    if not s.open:
        return s
    nodes = [e for e in ended if e.role is Role.NODE and e.round == s.memory.round]
    well = [e for e in nodes if e.cause is Cause.SUCCEEDED]
    if well:
        since = s.memory.finishing_since
        s = s.remember(
            finishing_since=min(e.at for e in well) if since is None else since,
            finished=(*s.memory.finished, *(e.uid for e in well)),
        )
    first = s.memory.finishing_since
    if first is None:
        return s
    covered = _all_ranks(s)
    if not covered and any(_spoils(e, first) for e in nodes):
        return s.next_round()
    if any(s.running(p) for p in s.nodes):
        patience = s.spec.termination_grace_period_seconds if covered else s.spec.finish_timeout_seconds
        return _hurry(s, first + patience)
    s = ledger.close(s, first, [i for i in s.memory.incidents if not i.over])
    return s.end(JobPhase.SUCCEEDED, "Finished", "training has finished", ExitCode.OK)


def _all_ranks(s: Situation) -> bool:
    """Whether the nodes that ended well held every rank of the newest world that was reported."""
    world = s.memory.world
    return world is not None and len(s.memory.finished) * s.spec.procs_per_node >= world


def _spoils(end: Ended, first: float) -> bool:
    return end.cause not in (Cause.SUCCEEDED, Cause.STOPPED) and end.was_ready and end.at >= first - SLACK


def _hurry(s: Situation, limit: float) -> Situation:
    for node in s.nodes:
        if not s.running(node) or s.now >= limit:
            s = s.stop(node.uid, "the others have finished")
    return s.wake(limit)
