"""Who an object belongs to and which process a pod is: labels, owner reference, annotation.

Not here: how a pod is recognised again (`backends/kubernetes/observe/process.py`).
"""

from __future__ import annotations

import json
from typing import Any

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.plan import Start


def owner(job: AurlTrainingJob) -> dict[str, Any]:
    """The reference by which the cluster deletes what belongs to a deleted job."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def common_labels(job: AurlTrainingJob) -> dict[str, str]:
    """Labels of everything that belongs to a job."""
    return {
        names.MANAGED_BY: names.MANAGER,
        names.JOB: job.metadata.name,
        names.JOB_UID: str(job.metadata.uid),
    }


def metadata(job: AurlTrainingJob, start: Start) -> dict[str, Any]:
    """The metadata of the pod of `start`."""
    process = {
        "role": start.role.value,
        "index": start.index,
        "attempt": start.attempt,
        "round": start.round,
    }
    labels = {
        names.ROLE: start.role.value,
        names.INDEX: str(start.index),
        names.ATTEMPT: str(start.attempt),
        names.ROUND: str(start.round),
    }
    return {
        "name": names.pod_name(job.metadata.name, start.name),
        "namespace": job.metadata.namespace,
        "labels": {**common_labels(job), **labels},
        "annotations": {names.PROCESS: json.dumps(process)},
        "ownerReferences": [owner(job)],
    }
