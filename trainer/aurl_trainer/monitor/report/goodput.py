"""Where the run's time went: seconds of steps that are in the result, and what the rest was spent on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from aurl_trainer.monitor.report.lineage import Generation, surviving
from aurl_trainer.monitor.report.source import Run
from aurl_trainer.monitor.report.timeline import Incident

REGROUPED = "regrouped"
"""What a change of the world cost that no incident in the ledger explains, as when a node joins."""


@dataclass(frozen=True)
class Share:
    """Seconds spent in one way. `lost` ones would not have been spent in an undisturbed run."""

    name: str
    seconds: float
    lost: bool = False


@dataclass(frozen=True)
class Goodput:
    """`ratio` is productive seconds over all seconds since the first node was ready; None: no time passed."""

    total_seconds: float
    productive_seconds: float
    shares: tuple[Share, ...]

    @property
    def ratio(self) -> float | None:
        """Between 0 and 1."""
        return min(1.0, self.productive_seconds / self.total_seconds) if self.total_seconds > 0 else None

    @property
    def lost_seconds(self) -> float:
        """Seconds that incidents cost."""
        return sum(s.seconds for s in self.shares if s.lost)


def goodput(run: Run, lineage: Sequence[Generation], incidents: Sequence[Incident]) -> Goodput:
    """The shares of the time from the first node's readiness to the last record.

    The ledger's first phase Running tells when that was; without it, the first generation's start counts.

    The cost of an incident is what the ledger booked; shares are cut to what is left of the total, in the
    order of the list, so that they always add up to it.
    """
    if not lineage:
        return Goodput(0.0, 0.0, ())
    ready = [e.at for e in run.ledger if e.kind == "phase" and e.phase == "Running"]
    since = min([lineage[0].at, *ready[:1]])
    total = max(g.until for g in lineage) - since
    productive = min(total, sum(r["seconds"] for g in lineage for r in g.kept))
    lost: dict[str, float] = {}
    for incident in incidents:
        if incident.lost_seconds:
            lost[incident.cause] = lost.get(incident.cause, 0.0) + incident.lost_seconds
    lost[REGROUPED] = _unexplained(lineage, incidents)
    wanted = [Share("steps in the result", productive), Share("first start", lineage[0].at - since)]
    wanted += [Share(cause, seconds, lost=True) for cause, seconds in lost.items()]
    wanted.append(Share("evaluation", sum(r["seconds"] for r in surviving(run, lineage, "evaluation"))))
    wanted.append(Share("saving checkpoints", sum(r["seconds"] for r in surviving(run, lineage, "save"))))
    left = total
    shares: list[Share] = []
    for share in wanted:
        seconds = min(left, share.seconds)
        if seconds > 0:
            shares.append(Share(share.name, seconds, share.lost))
            left -= seconds
    if left > 0:
        shares.append(Share("sampling and the rest", left))
    return Goodput(total, productive, tuple(shares))


def _unexplained(lineage: Sequence[Generation], incidents: Sequence[Incident]) -> float:
    """Seconds between generations, with the steps done again, where no incident lies in or before the gap."""
    seconds = 0.0
    for before, after in pairwise(lineage):
        first = after.first_step
        resumed_at = first["at"] - first["seconds"] if first else after.until
        if not any(before.at <= i.at <= resumed_at for i in incidents if not i.noticed):
            seconds += max(0.0, resumed_at - before.until) + sum(r["seconds"] for r in before.redone)
    return seconds
