"""Names that objects on a cluster carry: labels, annotations, ports, and how pods are called.

They are a public interface: changing one orphans the pods of jobs that run. Not here: names within one job,
without the job's (`core/names.py`), and environment variables (`aurl_trainer.contract`).
"""

from __future__ import annotations

import hashlib

GROUP = "aurl.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AurlTrainingJob"
PLURAL = "aurltrainingjobs"
SINGULAR = "aurltrainingjob"
SHORT_NAME = "atj"

FIELD_MANAGER = "aurl-operator"
"""Field manager and user agent of the operator."""

FINALIZER = f"{GROUP}/checkpoints"
"""On a job only while its clean-up deletes checkpoints."""

# Labels of every object that belongs to a job. An object without MANAGED_BY is not watched.
JOB = f"{GROUP}/job"
JOB_UID = f"{GROUP}/job-uid"
ROLE = f"{GROUP}/role"
INDEX = f"{GROUP}/index"
ATTEMPT = f"{GROUP}/attempt"
ROUND = f"{GROUP}/round"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "aurl"
SELECTOR = f"{MANAGED_BY}={MANAGER}"
"""What watches select on, server-side."""

PROCESS = f"{GROUP}/process"
"""Annotation of a pod: role, index, attempt and round as JSON, so that a removed label loses nothing."""

RESUME = f"{GROUP}/resume"
"""Annotation of a job: a new token here lets a failed job try again."""

PROGRESS_PORT = 8090
"""Where a node's agent answers for its progress."""

STORE_PORT = 29400
"""Where the rendezvous store listens."""

TRAINER_CONTAINER = "trainer"
STORE_CONTAINER = "store"
CLEANER_CONTAINER = "cleaner"
CONTAINERS = (TRAINER_CONTAINER, STORE_CONTAINER, CLEANER_CONTAINER)
"""Of a pod, the one of these is what it is for; others are the template's, or a webhook's."""


def pod_name(job: str, process: str) -> str:
    """The pod of a process, `worker-1-0` of job `bach`: `bach-worker-1-0`."""
    return f"{job}-{process}"


LABEL_LENGTH = 63
"""The longest value of a label."""


def agent_config_map(job: str, uid: str, digest: str) -> str:
    """The ConfigMap that brings the agent, with files of `digest`, to images which know nothing of it.

    Another job of this name, before or after, has another one, and so has another version of the agent.
    """
    return f"{job}-agent-{_hash(uid + digest)}"


def pod_group(job: str, round_: int) -> str:
    """The gang of one round of a job, for Volcano and Kueue: the value of a label."""
    end = f"-round-{round_}"
    if len(job) + len(end) <= LABEL_LENGTH:
        return f"{job}{end}"
    end = f"-{_hash(job)}{end}"
    return f"{job[: LABEL_LENGTH - len(end)].rstrip('-')}{end}"


def _hash(text: str) -> str:
    """Tells names apart: 10 characters."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
