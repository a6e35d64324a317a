"""For all tests: one thread a process, as workers, ranks and helpers share few cores. Before torch loads."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
