"""Gang scheduling: what Volcano and Kueue want of pods, and Volcano's PodGroup.

The rendezvous store is in no gang: it starts first, and nodes need its address. Volcano starts a round when
`nodes.min` fit, with one PodGroup a job. Kueue's groups count their pods for ever, so each round of a job is
a group of its own; it adds its scheduling gate itself. Not here: the rest of the pod (`manifest.py`).
"""

from __future__ import annotations

from typing import Any

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.pod.identity import common_labels, owner

VOLCANO_GROUP = "scheduling.k8s.io/group-name"
VOLCANO_API = "scheduling.volcano.sh/v1beta1"
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_GROUP = "kueue.x-k8s.io/pod-group-name"
KUEUE_TOTAL = "kueue.x-k8s.io/pod-group-total-count"


def in_gang(pod: dict[str, Any], job: AurlTrainingJob, start: Start) -> dict[str, Any]:
    """`pod` as a member of its gang, if the job asked for one and `start` is of a node."""
    scheduling = job.spec.scheduling
    if scheduling.gang == "None" or start.role is not Role.NODE:
        return pod
    meta, spec = pod["metadata"], pod["spec"]
    labels, annotations = dict(meta["labels"]), dict(meta["annotations"])
    if scheduling.gang == "Volcano":
        annotations[VOLCANO_GROUP] = job.metadata.name
        spec = {**spec, "schedulerName": "volcano"}
    else:
        labels[KUEUE_GROUP] = names.pod_group(job.metadata.name, start.round)
        annotations[KUEUE_TOTAL] = str(start.nodes_max)
        if scheduling.queue is not None:
            labels[KUEUE_QUEUE] = scheduling.queue
    return {**pod, "metadata": {**meta, "labels": labels, "annotations": annotations}, "spec": spec}


def group(job: AurlTrainingJob) -> dict[str, Any] | None:
    """Volcano's PodGroup of the job, to be there before its nodes; None if the job needs none.

    To be applied, not only created: `nodes.min` may have changed.
    """
    scheduling = job.spec.scheduling
    if scheduling.gang != "Volcano":
        return None
    spec: dict[str, Any] = {"minMember": job.spec.nodes.min}
    if scheduling.queue is not None:
        spec["queue"] = scheduling.queue
    if scheduling.priority_class is not None:
        spec["priorityClassName"] = scheduling.priority_class
    return {
        "apiVersion": VOLCANO_API,
        "kind": "PodGroup",
        "metadata": {
            "name": job.metadata.name,
            "namespace": job.metadata.namespace,
            "labels": common_labels(job),
            "ownerReferences": [owner(job)],
        },
        "spec": spec,
    }
