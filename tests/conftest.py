"""For all tests: one thread a process, as workers, ranks and helpers share few cores. Before torch loads.

No test is timed: a machine that is busy with something else makes none fail.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("aurl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aurl")
