"""`suspend`: nodes save and leave, everything is given back; later the run goes on from its checkpoint."""

from __future__ import annotations

from aurl_operator.core.situation import Situation


def suspend(s: Situation) -> Situation:
    """Begins or ends a suspension. The nodes get a notice; the store goes when they are gone."""
    since = s.memory.suspended_since
    if s.suspended and s.open:
        if since is None:
            s = s.remember(suspended_since=s.now, short_since=None)
        for node in s.nodes:
            s = s.stop(node.uid, "suspended")
        return s
    # A job that ends while it is suspended sleeps no longer: its goodput is settled.
    if since is not None:
        asleep = s.memory.suspended_seconds + (s.now - since)
        s = s.remember(suspended_since=None, suspended_seconds=asleep, give_backs=0, hold_until=0.0)
    return s
