"""All nodes at once or none: what Volcano and Kueue need to see on the pods, and Volcano's PodGroup.

One gang is one round of a job. Kueue makes its own objects from labels; Volcano wants a PodGroup first.
"""

from __future__ import annotations

from typing import Any

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.plan import Start

Json = dict[str, Any]


def joined(job: AurlTrainingJob, start: Start, pod: Json) -> Json:
    """The node's pod as a member of its gang; unchanged without one."""
    scheduling = job.spec.scheduling
    group = names.pod_group(job.metadata.name, start.round)
    labels, annotations = dict(pod["metadata"]["labels"]), dict(pod["metadata"]["annotations"])
    spec = dict(pod["spec"])
    if scheduling.gang == "Volcano":
        annotations["scheduling.k8s.io/group-name"] = group
        spec["schedulerName"] = "volcano"
    elif scheduling.gang == "Kueue":
        labels["kueue.x-k8s.io/pod-group-name"] = group
        annotations["kueue.x-k8s.io/pod-group-total-count"] = str(start.nodes_max)
        annotations["kueue.x-k8s.io/retriable-in-group"] = "true"
        if scheduling.queue is not None:
            labels["kueue.x-k8s.io/queue-name"] = scheduling.queue
    else:
        return pod
    return {
        **pod,
        "metadata": {**pod["metadata"], "labels": labels, "annotations": annotations},
        "spec": spec,
    }


def pod_group(job: AurlTrainingJob, start: Start, owner: Json) -> Json | None:
    """Volcano's PodGroup of this round; None without Volcano."""
    scheduling = job.spec.scheduling
    if scheduling.gang != "Volcano":
        return None
    spec: Json = {"minMember": start.nodes_min}
    if scheduling.queue is not None:
        spec["queue"] = scheduling.queue
    if scheduling.priority_class is not None:
        spec["priorityClassName"] = scheduling.priority_class
    return {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "PodGroup",
        "metadata": {
            "name": names.pod_group(job.metadata.name, start.round),
            "namespace": job.metadata.namespace,
            "labels": {names.MANAGED_BY: names.MANAGER, names.JOB: job.metadata.name},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }
