"""Whether the job has trained before: then its checkpoint location has worked, and may come back.

A new node of an old job begins with its first attempt, as at the job's first start: its own number of tries
says nothing. Not here: what follows from it (exits.py, checkpoint/waiting.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from aurl_trainer.contract import Env, RunFile


def trained_before(env: Mapping[str, str] = os.environ) -> bool:
    """Whether whoever launched this node says so, or ranks have begun a generation in its run directory."""
    if env.get(Env.TRAINED) == "1":
        return True
    folder = Path(env.get(Env.RUN_DIR, ".")) / RunFile.RECORDS
    return folder.is_dir() and any(folder.iterdir())
