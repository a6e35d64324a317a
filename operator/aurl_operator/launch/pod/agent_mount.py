"""The agent for images that have nothing of ours: its files in a ConfigMap, mounted as a folder.

Python runs the folder itself, so nothing of the image's own environment, PYTHONPATH included, is touched.
The ConfigMap is immutable, and its name tells the job and the files apart: a pod never finds others than it
was made for, whatever became of the job before it or of the operator.
Not here: the rest of the pod (`manifest.py`).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.launch.pod.identity import common_labels, owner

FOLDER = "/aurl/lib"
"""Where the folder is mounted."""

VOLUME = "aurl-agent"

_START = """from aurl_trainer.agent.__main__ import main

main()
"""


def name(job: AurlTrainingJob) -> str:
    """Of the ConfigMap."""
    return names.agent_config_map(job.metadata.name, str(job.metadata.uid), _digest())


def mounted(pod: Mapping[str, Any]) -> str | None:
    """The ConfigMap that a pod has the agent from, maybe of another version; None if from none."""
    for volume in pod.get("spec", {}).get("volumes") or []:
        if volume["name"] == VOLUME:
            return str(volume["configMap"]["name"])
    return None


def config_map(job: AurlTrainingJob) -> dict[str, Any] | None:
    """The ConfigMap that the pods of a `command` job mount; None for a job that needs none."""
    if job.spec.command is None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(job),
            "namespace": job.metadata.namespace,
            "labels": common_labels(job),
            "ownerReferences": [owner(job)],
        },
        "immutable": True,
        "data": {_key(path): text for path, text in _sources().items()},
    }


def volume(job: AurlTrainingJob) -> dict[str, Any]:
    """The pod's volume: keys of a ConfigMap have no folders in them, so each says where it goes."""
    return {
        "name": VOLUME,
        "configMap": {
            "name": name(job),
            "defaultMode": 0o444,
            "items": [{"key": _key(path), "path": path} for path in _sources()],
        },
    }


@functools.cache
def _digest() -> str:
    return hashlib.sha256(json.dumps(_sources()).encode()).hexdigest()


def _key(path: str) -> str:
    return path.replace("/", ".")


@functools.cache
def _sources() -> dict[str, str]:
    """The agent's files by path in the folder, read from the installed package without importing it."""
    package = files("aurl_trainer")
    found: dict[str, str] = {"__main__.py": _START}
    for name in ("__init__.py", "contract.py"):
        found[f"aurl_trainer/{name}"] = package.joinpath(name).read_text()
    agent: Traversable = package.joinpath("agent")
    for file in sorted(agent.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".py"):
            found[f"aurl_trainer/agent/{file.name}"] = file.read_text()
    return found
