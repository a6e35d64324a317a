"""The agent for images that know nothing of Aurl: a ConfigMap with its files, mounted where Python looks.

The files are read from the installed package without importing it (it needs torch). Only `command:` jobs
have one. Not here: the agent.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob

PATH = "/aurl/lib"
MOUNT: dict[str, Any] = {"name": "agent", "mountPath": PATH, "readOnly": True}


@functools.cache
def _files() -> dict[str, str]:
    """Text by path below the library's folder."""
    found = find_spec("aurl_trainer")
    assert found is not None and found.submodule_search_locations
    package = Path(next(iter(found.submodule_search_locations)))
    paths = [package / "__init__.py", package / "contract.py", *sorted((package / "agent").glob("*.py"))]
    return {f"aurl_trainer/{path.relative_to(package)}": path.read_text() for path in paths}


def _key(path: str) -> str:
    """A ConfigMap's keys have no slashes."""
    return path.replace("/", "..")


def config_map(job: AurlTrainingJob, owner: dict[str, Any]) -> dict[str, Any] | None:
    """The ConfigMap of a `command:` job, None for any other."""
    if job.spec.command is None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.agent_config_map(job.metadata.name),
            "namespace": job.metadata.namespace,
            "labels": {names.MANAGED_BY: names.MANAGER, names.JOB: job.metadata.name},
            "ownerReferences": [owner],
        },
        "immutable": True,
        "data": {_key(path): text for path, text in _files().items()},
    }


def volume(job: AurlTrainingJob) -> dict[str, Any]:
    """The volume that lays the files out as the package they are."""
    return {
        "name": MOUNT["name"],
        "configMap": {
            "name": names.agent_config_map(job.metadata.name),
            "items": [{"key": _key(path), "path": path} for path in _files()],
        },
    }
