"""One look at one job, and what to do about it: `reconcile`, a pure function.

Not here: the rules themselves, one file each in policies/.
"""

from __future__ import annotations

from aurl_operator.core.observed import Observed
from aurl_operator.core.plan import Plan


def reconcile(observed: Observed) -> Plan:
    """What to persist, write and do about the job as it is `observed`."""
    raise NotImplementedError
