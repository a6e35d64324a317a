"""Which checkpoint is meant: the newest, the best, or the one of a step; and which run.

Not here: loading it (checkpoint/loading.py).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import yaml

from aurl_trainer.contract import RunFile
from aurl_trainer.errors import CheckpointError, DamagedError, MissingError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import MANIFESTS
from aurl_trainer.store.retention import BEST_BY
from aurl_trainer.store.run_store import RunStore

Which = Literal["latest", "best"] | int


def candidates(store: RunStore, which: Which) -> list[Manifest]:
    """The manifests that `which` may mean, the first choice first; at least one.

    Raises CheckpointError when there is none, DamagedError when no manifest is readable.
    """
    names = list(reversed(store.valid()))
    if isinstance(which, int):
        steps = sorted({n.step for n in names})
        names = [n for n in names if n.step == which]
        if not names:
            raise CheckpointError(f"{store.location.uri}: no checkpoint of step {which}; there are: {steps}")
    if not names:
        raise CheckpointError(f"{store.location.uri}: no checkpoint there")
    manifests = []
    damage: DamagedError | None = None
    for name in names:
        try:
            manifests.append(store.manifest(name))
        except DamagedError as error:
            damage = error
    if which == "best":
        manifests.sort(key=rating)
    if not manifests:
        assert damage is not None
        raise damage
    return manifests


def rating(manifest: Manifest) -> float:
    """What `best` goes by, lower is better; infinite for one saved without it."""
    value = manifest.metrics.get(BEST_BY)
    return math.inf if value is None else value


def checkpoints_of(run: str) -> str:
    """The place of a run's checkpoints; `run` is such a place itself (URL or path), or a run's directory.

    Raises MissingError when nothing is there.
    """
    if "://" in run:
        return run
    folder = Path(run)
    if (folder / MANIFESTS).is_dir():
        return run
    uri = _uri_in_job(folder / RunFile.JOB)
    if uri is not None:
        return uri
    if (folder / RunFile.CHECKPOINTS).is_dir():
        return str(folder / RunFile.CHECKPOINTS)
    raise MissingError(f"{run}: no checkpoints there; expected a run's directory or a checkpoint URL")


def _uri_in_job(path: Path) -> str | None:
    """`spec.checkpoint.uri` of a run's resolved job."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        uri = value["spec"]["checkpoint"]["uri"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    return uri if isinstance(uri, str) and uri else None
