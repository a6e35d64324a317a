"""What end-to-end tests ask of a run's directory. Jobs and music: bench/chaos/job.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def state(run: Path) -> dict[str, Any]:
    """The operator's memory of a run."""
    found: dict[str, Any] = json.loads((run / "state.json").read_text())
    return found
